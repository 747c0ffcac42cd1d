// LangChain for Go, which speaks REST to the dialect, and plain net/http with the JSON of its documentation (N6, V12).
// The official Go client is gRPC only. The node is at VECRAFT_URL.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tmc/langchaingo/schema"
	"github.com/tmc/langchaingo/vectorstores"
	"github.com/tmc/langchaingo/vectorstores/qdrant"
)

type object = map[string]any

// meaning stands in for an embedding model: each word that says something weighs on an axis.
type meaning struct{}

var axes = map[string]struct {
	axis   int
	weight float32
}{"quiet": {0, 1}, "calm": {0, 0.9}, "loud": {1, 1}, "piano": {2, 1}, "organ": {2, 0.7}, "orchestra": {3, 1}}

func (meaning) EmbedQuery(_ context.Context, text string) ([]float32, error) {
	vector := make([]float32, 4)
	for _, word := range strings.Fields(text) {
		if known, ok := axes[word]; ok {
			vector[known.axis] += known.weight
		}
	}
	return vector, nil
}

func (m meaning) EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error) {
	vectors := make([][]float32, len(texts))
	for i, text := range texts {
		vectors[i], _ = m.EmbedQuery(ctx, text)
	}
	return vectors, nil
}

func song(title, text, composer string) schema.Document {
	return schema.Document{PageContent: text, Metadata: object{"title": title, "composer": composer}}
}

func node(t *testing.T) *url.URL {
	t.Helper()
	address, err := url.Parse(os.Getenv("VECRAFT_URL"))
	if err != nil || address.Host == "" {
		t.Fatalf("VECRAFT_URL is no address: %q", os.Getenv("VECRAFT_URL"))
	}
	return address
}

func collection(prefix string) string {
	return fmt.Sprintf("%s-%d", prefix, time.Now().UnixNano())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// call sends a request as a user would, and gives the result of a success.
func call(t *testing.T, method, path string, body any) any {
	t.Helper()
	encoded, err := json.Marshal(body)
	must(t, err)
	request, err := http.NewRequest(method, node(t).String()+path, bytes.NewReader(encoded))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, response.StatusCode, said)
	}
	var answer struct {
		Status string
		Result any
	}
	must(t, json.Unmarshal(said, &answer))
	same(t, answer.Status, "ok")
	return answer.Result
}

// find gives the titles and scores of a search.
func find(t *testing.T, store qdrant.Store, query string, options ...vectorstores.Option) (titles []string, scores []float32) {
	t.Helper()
	found, err := store.SimilaritySearch(context.Background(), query, 10, options...)
	must(t, err)
	for _, document := range found {
		titles = append(titles, document.Metadata["title"].(string))
		scores = append(scores, document.Score)
	}
	return titles, scores
}

func TestLangChainForGo(t *testing.T) {
	ctx, songs := context.Background(), collection("songs")
	config := object{"vectors": object{"size": 4, "distance": "Dot"}}
	_, status, err := qdrant.DoRequest(ctx, *node(t).JoinPath("collections", songs), "", http.MethodPut, config)
	must(t, err)
	same(t, status, http.StatusOK)

	store, err := qdrant.New(qdrant.WithURL(*node(t)), qdrant.WithCollectionName(songs), qdrant.WithEmbedder(meaning{}))
	must(t, err)
	ids, err := store.AddDocuments(ctx, []schema.Document{
		song("Clair de lune", "a calm piano", "Debussy"),
		song("La mer", "a loud orchestra, then a calm one", "Debussy"),
		song("Toccata", "a loud organ", "Widor"),
	})
	must(t, err)
	same(t, len(ids), 3)

	titles, scores := find(t, store, "quiet piano")
	same(t, titles, []string{"Clair de lune", "La mer", "Toccata"})
	same(t, scores, []float32{1.9, 0.9, 0.7})
	titles, _ = find(t, store, "quiet piano", vectorstores.WithScoreThreshold(0.8))
	same(t, titles, []string{"Clair de lune", "La mer"})
	byWidor := object{"must": []object{{"key": "composer", "match": object{"value": "Widor"}}}}
	titles, _ = find(t, store, "quiet piano", vectorstores.WithFilters(byWidor))
	same(t, titles, []string{"Toccata"})
	call(t, http.MethodDelete, "/collections/"+songs, nil)
}

func TestPlainRequests(t *testing.T) {
	songs := "/collections/" + collection("plain")
	call(t, http.MethodPut, songs, object{"vectors": object{"size": 2, "distance": "Dot"}})
	call(t, http.MethodPut, songs+"/points?wait=true", object{"points": []object{
		{"id": 1, "vector": []float32{1, 0}, "payload": object{"title": "Clair de lune", "year": 1905}},
		{"id": 2, "vector": []float32{0, 1}, "payload": object{"title": "Toccata", "year": 1879}},
		{"id": 3, "vector": []float32{1, 1}, "payload": object{"title": "La mer", "year": 1905}},
	}})
	call(t, http.MethodPut, songs+"/index?wait=true", object{"field_name": "year", "field_schema": "integer"})
	in1905 := object{"must": []object{{"key": "year", "range": object{"gte": 1905}}}}

	same(t, call(t, http.MethodPost, songs+"/points/count", object{"filter": in1905}), any(object{"count": 2.0}))
	found := call(t, http.MethodPost, songs+"/points/query", object{"query": []float32{0.5, 1}, "filter": in1905, "limit": 2})
	hits := found.(object)["points"].([]any)
	same(t, len(hits), 2)
	same(t, hits[0].(object)["id"], 3.0)
	same(t, hits[0].(object)["score"], 1.5)
	page := call(t, http.MethodPost, songs+"/points/scroll", object{"limit": 2}).(object)
	same(t, page["next_page_offset"], 3.0)
	call(t, http.MethodPost, songs+"/points/delete?wait=true", object{"filter": in1905})
	left := call(t, http.MethodPost, songs+"/points", object{"ids": []int{1, 2, 3}}).([]any)
	same(t, len(left), 1)
	same(t, left[0].(object)["payload"], any(object{"title": "Toccata", "year": 1879.0}))
	call(t, http.MethodDelete, songs, nil)
}
