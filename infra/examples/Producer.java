import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes to the ingest topic with the stock Java client: JSON bodies, the point's id as the key; no body at all is a delete. */
public class Producer {
    static final String TOPIC = variable("VECRAFT_TOPIC_PREFIX", "vecraft") + ".ingest";
    static final String COLLECTION = variable("VECRAFT_COLLECTION", "songs");
    static final Map<String, Object> SETTINGS = Map.of(
            "bootstrap.servers", variable("VECRAFT_BOOTSTRAP_SERVERS", "localhost:9092"),
            "acks", "all",
            "enable.idempotence", true,
            "max.block.ms", 15_000,
            "request.timeout.ms", 10_000,
            "delivery.timeout.ms", 15_000);

    record Change(String id, String body) {}

    static final List<Change> CHANGES = List.of(
            new Change("31", """
                {"vector": [0.1, 0.9, 0.2, 0], "payload": {"title": "Blue in Green", "year": 1959}}"""),
            new Change("32", """
                {"vector": [0.9, 0.1, 0, 0.3], "payload": {"title": "A Love Supreme", "draft": true}}"""),
            new Change("33", """
                {"vector": [0.5, 0.5, 0.5, 0.5]}"""),
            new Change("32", """
                {"op": "patch", "payload": {"year": 1965, "draft": null}}"""),
            new Change("33", null));

    /** Ends without an exception when the brokers have every record. Until then it may be run again: nothing is applied twice. */
    public static void main(String[] arguments) throws Exception {
        var sent = new ArrayList<Future<RecordMetadata>>();
        try (var producer = new KafkaProducer<>(SETTINGS, new StringSerializer(), new StringSerializer())) {
            producer.partitionsFor(TOPIC); // where there is no such topic it fails once, here, and not at each record
            for (int number = 0; number < CHANGES.size(); number++) {
                var change = CHANGES.get(number);
                var record = new ProducerRecord<>(TOPIC, change.id(), change.body());
                record.headers()
                        .add("vecraft-collection", COLLECTION.getBytes(UTF_8))
                        .add("vecraft-tier", "1".getBytes(UTF_8))
                        .add("ce_source", "examples/Producer.java".getBytes(UTF_8))
                        .add("ce_id", Integer.toString(number).getBytes(UTF_8));
                sent.add(producer.send(record));
            }
            for (var acknowledgement : sent) acknowledgement.get();
        }
        System.out.println(sent.size() + " changes are in " + TOPIC);
    }

    static String variable(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
