// The JavaScript client of the dialect, @qdrant/js-client-rest, through a user's day (N6, V12). The node is at VECRAFT_URL.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { QdrantClient } from "@qdrant/js-client-rest";

const CLAIR = "5f3ad7cb-0fc0-4d41-8c02-3a1ae1f4b8b1"; // an id may be a UUID, too
const SONGS = [
  { id: 1, vector: [0.8, 0.1, 1, 0], payload: { title: "Gymnopédie No. 1", composer: "Satie", year: 1888 } },
  { id: CLAIR, vector: [0.9, 0, 1, 0], payload: { title: "Clair de lune", composer: "Debussy", year: 1905 } },
  { id: 3, vector: [0.7, 1, 0, 1], payload: { title: "La mer", composer: "Debussy", year: 1905 } },
  { id: 4, vector: [0, 1, 0.7, 0], payload: { title: "Toccata", composer: "Widor", year: 1879 } },
];
const QUIET_PIANO = [1, 0, 1, 0];
const BY_DEBUSSY = { must: [{ key: "composer", match: { value: "Debussy" } }] };

// 1.19 wants Node 22, and 1.18 would warn of a server two versions ahead
const client = new QdrantClient({ url: process.env.VECRAFT_URL, checkCompatibility: false });
const songs = `songs-${randomUUID()}`;
const titles = (points) => points.map((point) => point.payload.title);

before(async () => {
  await client.createCollection(songs, { vectors: { size: 4, distance: "Cosine" }, shard_number: 2 });
  const { status } = await client.upsert(songs, { wait: true, points: SONGS });
  assert.equal(status, "completed");
});

after(async () => {
  await client.deleteCollection(songs);
  assert.equal((await client.collectionExists(songs)).exists, false);
});

test("queries and searches rank, filter and page", async () => {
  const { points } = await client.query(songs, { query: QUIET_PIANO, with_payload: true, limit: 4 });
  assert.deepEqual(titles(points), ["Clair de lune", "Gymnopédie No. 1", "Toccata", "La mer"]);
  assert.ok(Math.abs(points[0].score - 1.9 / Math.sqrt(2 * 1.81)) < 1e-5);
  assert.deepEqual(titles(await client.search(songs, { vector: QUIET_PIANO, filter: BY_DEBUSSY })), ["Clair de lune", "La mer"]);
  assert.deepEqual(titles(await client.search(songs, { vector: QUIET_PIANO, limit: 1, offset: 1 })), ["Gymnopédie No. 1"]);
  const [first, second] = await client.queryBatch(songs, {
    searches: [
      { query: QUIET_PIANO, limit: 1, with_payload: ["title"] },
      { query: CLAIR, limit: 1, with_payload: true },
    ],
  });
  assert.deepEqual(first.points[0].payload, { title: "Clair de lune" });
  assert.deepEqual(titles(second.points), ["Gymnopédie No. 1"]);
});

test("points are scrolled, counted, grouped and recommended", async () => {
  const seen = [];
  let offset;
  do {
    const page = await client.scroll(songs, { limit: 3, offset, with_vector: true });
    seen.push(...page.points);
    offset = page.next_page_offset;
  } while (offset !== null);
  assert.deepEqual(new Set(titles(seen)), new Set(titles(SONGS)));
  assert.equal(seen[0].vector.length, 4);
  assert.equal((await client.count(songs, { filter: BY_DEBUSSY })).count, 2);
  const { groups } = await client.queryGroups(songs, { query: QUIET_PIANO, group_by: "composer", limit: 2, group_size: 2 });
  assert.deepEqual(groups.map((group) => [group.id, group.hits.length]), [["Debussy", 2], ["Satie", 1]]);
  const alike = await client.recommend(songs, { positive: [CLAIR], negative: [3], limit: 1 });
  assert.deepEqual(titles(alike), ["Gymnopédie No. 1"]);
});

test("payload is indexed, faceted and edited", async () => {
  await client.createPayloadIndex(songs, { field_name: "composer", field_schema: "keyword", wait: true });
  assert.equal((await client.getCollection(songs)).payload_schema.composer.data_type, "keyword");
  const { hits } = await client.facet(songs, { key: "composer", limit: 1 });
  assert.deepEqual(hits, [{ value: "Debussy", count: 2 }]);
  await client.setPayload(songs, { payload: { key: "D-flat major" }, points: [CLAIR] });
  await client.batchUpdate(songs, {
    operations: [
      { set_payload: { payload: { style: "Impressionism", seen: true }, filter: BY_DEBUSSY } },
      { delete_payload: { keys: ["seen"], points: [CLAIR] } },
    ],
  });
  const [clair, mer] = await client.retrieve(songs, { ids: [CLAIR, 3] });
  assert.deepEqual(clair.payload, { ...SONGS[1].payload, key: "D-flat major", style: "Impressionism" });
  assert.deepEqual(mer.payload, { ...SONGS[2].payload, style: "Impressionism", seen: true });
});

test("an alias changes hands", async () => {
  const alias = `alias-${randomUUID()}`;
  await client.updateCollectionAliases({ actions: [{ create_alias: { collection_name: songs, alias_name: alias } }] });
  assert.equal((await client.count(alias)).count, 4);
  assert.deepEqual((await client.getCollectionAliases(songs)).aliases, [{ alias_name: alias, collection_name: songs }]);
  await client.updateCollectionAliases({ actions: [{ delete_alias: { alias_name: alias } }] });
});

test("named, sparse and multi-vectors are prefetched and fused", async () => {
  const mixed = `mixed-${randomUUID()}`;
  await client.createCollection(mixed, {
    vectors: {
      meaning: { size: 4, distance: "Dot" },
      late: { size: 2, distance: "Dot", multivector_config: { comparator: "max_sim" } },
    },
    sparse_vectors: { words: {} },
  });
  await client.upsert(mixed, {
    wait: true,
    points: SONGS.map(({ vector, payload }, n) => ({
      id: n,
      vector: { meaning: vector, words: { indices: [n, 10], values: [1, 0.1 * n] }, late: [vector.slice(0, 2), vector.slice(2)] },
      payload,
    })),
  });
  const words = { query: { indices: [3, 10], values: [1, 1] }, using: "words", limit: 2 };
  const fusedHits = await client.query(mixed, {
    prefetch: [{ query: QUIET_PIANO, using: "meaning", limit: 2 }, words],
    query: { fusion: "rrf" },
    with_payload: true,
  });
  assert.deepEqual(new Set(titles(fusedHits.points)), new Set(["Clair de lune", "Gymnopédie No. 1", "Toccata", "La mer"]));
  const rescored = await client.query(mixed, { prefetch: words, query: [[0.5, 1]], using: "late", with_payload: true });
  assert.deepEqual(titles(rescored.points), ["La mer", "Toccata"]);
  await client.deleteCollection(mixed);
});

test("points are deleted by id and by filter", async () => {
  const few = `few-${randomUUID()}`;
  await client.createCollection(few, { vectors: { size: 4, distance: "Dot" } });
  await client.upsert(few, {
    wait: true,
    batch: { ids: [1, 2, 3, 4], vectors: SONGS.map(({ vector }) => vector), payloads: SONGS.map(({ payload }) => payload) },
  });
  await client.delete(few, { wait: true, points: [1] });
  await client.delete(few, { wait: true, filter: BY_DEBUSSY });
  assert.deepEqual(titles((await client.scroll(few)).points), ["Toccata"]);
  await client.deleteCollection(few);
});

test("a mistake is told", async () => {
  const never = `never-${randomUUID()}`;
  await assert.rejects(client.count(never), (error) => error.status === 404 && error.data.status.error.includes(never));
  await assert.rejects(client.search(songs, { vector: [1] }), (error) => error.status === 400);
});
