import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The plain task on Kafka Streams: generic Avro in and out, a ring of five one-minute buckets per
 * account in RocksDB with its changelog, no record cache, exactly_once_v2.
 *
 * Arguments: bootstrap, application id, input topic, output topic, state folder, schema folder.
 */
public final class PlainTask {
  private static final int BUCKETS = 5;
  private static final long MINUTE_US = 60_000_000L;
  private static final int FRAME_BYTES = 5;
  private static final int OUT_SCHEMA_ID = 9002;
  private static final String STORE = "rings";

  private PlainTask() {}

  public static void main(String[] args) throws Exception {
    Schema in = schema(Path.of(args[5], "in.avsc"));
    Schema out = schema(Path.of(args[5], "out.avsc"));
    Topology topology = new Topology();
    topology.addSource("in", new ByteArrayDeserializer(), new ByteArrayDeserializer(), args[2]);
    topology.addProcessor("ring", () -> new Ring(in, out), "in");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), Serdes.ByteArray())
            .withCachingDisabled(),
        "ring");
    topology.addSink(
        "out", args[3], new ByteArraySerializer(), new ByteArraySerializer(), "ring");

    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(
        StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");

    KafkaStreams streams = new KafkaStreams(topology, settings);
    CountDownLatch ended = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          Runtime.getRuntime().halt(1);
          return null;
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  streams.close();
                  ended.countDown();
                }));
    streams.start();
    ended.await();
  }

  private static Schema schema(Path file) throws IOException {
    return new Schema.Parser().parse(Files.readString(file));
  }

  private static final class Ring implements Processor<byte[], byte[], byte[], byte[]> {
    private final GenericDatumReader<GenericRecord> reader;
    private final GenericDatumWriter<GenericRecord> writer;
    private final Schema out;
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    private GenericRecord payment;
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> rings;

    Ring(Schema in, Schema out) {
      this.out = out;
      this.reader = new GenericDatumReader<>(in);
      this.writer = new GenericDatumWriter<>(out);
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> given) {
      context = given;
      rings = given.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      try {
        byte[] value = record.value();
        decoder =
            DecoderFactory.get()
                .binaryDecoder(value, FRAME_BYTES, value.length - FRAME_BYTES, decoder);
        payment = reader.read(payment, decoder);
        byte[] kept = rings.get(record.key());
        ByteBuffer ring = ByteBuffer.wrap(kept == null ? new byte[24 * BUCKETS] : kept);
        long at = (Long) payment.get("requested_at_us");
        turn(ring, at, (Long) payment.get("amount_minor"));
        rings.put(record.key(), ring.array());
        context.forward(record.withValue(velocity(ring, at)));
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }

    private static void turn(ByteBuffer ring, long at, long amount) {
      long minute = at / MINUTE_US;
      int place = (int) (minute % BUCKETS) * 24;
      boolean same = ring.getLong(place) == minute;
      ring.putLong(place, minute);
      ring.putLong(place + 8, same ? ring.getLong(place + 8) + 1 : 1);
      ring.putLong(place + 16, same ? ring.getLong(place + 16) + amount : amount);
    }

    private byte[] velocity(ByteBuffer ring, long at) throws IOException {
      long oldest = at / MINUTE_US - BUCKETS;
      long count = 0;
      long sum = 0;
      for (int place = 0; place < 24 * BUCKETS; place += 24) {
        if (ring.getLong(place) > oldest) {
          count += ring.getLong(place + 8);
          sum += ring.getLong(place + 16);
        }
      }
      GenericRecord said = new GenericData.Record(out);
      said.put("payment_id", payment.get("payment_id"));
      said.put("account_id", payment.get("account_id"));
      said.put("count", count);
      said.put("sum_minor", sum);
      said.put("at_us", at);
      bytes.reset();
      bytes.write(ByteBuffer.allocate(FRAME_BYTES).put((byte) 0).putInt(OUT_SCHEMA_ID).array());
      encoder = EncoderFactory.get().directBinaryEncoder(bytes, encoder);
      writer.write(said, encoder);
      encoder.flush();
      return bytes.toByteArray();
    }
  }
}
