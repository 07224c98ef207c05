package peer;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.FilterFunction;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * W1, W2 and W3 on Flink, in one process: {@code peer.Peer w1 PARALLELISM FILE...} and
 * {@code peer.Peer (w2|w3) PARALLELISM ROWS KEYS SPLITS}. Prints {@code records=N checksum=HEX} of what is emitted, as
 * Regraft's blackhole counts and hashes it.
 *
 * <p>State on the heap, object reuse, no checkpoints; buffers are sent when they are full.
 */
public final class Peer {
  public static void main(String[] arguments) throws Exception {
    List<String> rest = new ArrayList<>(List.of(arguments));
    String workload = rest.remove(0);
    int parallelism = Integer.parseInt(rest.remove(0));
    StreamExecutionEnvironment environment = environment(parallelism);
    DataStream<byte[]> emitted = workload.equals("w1") ? words(environment, rest) : generated(environment, workload, rest);
    emitted.filter(new Blackhole()).name("blackhole").sinkTo(new DiscardingSink<>());
    Map<String, Object> totals = environment.execute(workload).getAllAccumulatorResults();
    System.out.printf("records=%d checksum=%016x%n", (Long) totals.get("records"), (Long) totals.get("checksum"));
  }

  private static StreamExecutionEnvironment environment(int parallelism) {
    Configuration configuration = new Configuration();
    configuration.setString("pipeline.object-reuse", "true");
    configuration.setString("pipeline.generic-types", "false");
    configuration.setString("state.backend.type", "hashmap");
    configuration.setString("restart-strategy.type", "none");
    configuration.setString("execution.buffer-timeout.enabled", "false");
    configuration.setString("taskmanager.numberOfTaskSlots", "" + parallelism);
    configuration.setString("taskmanager.memory.managed.size", "1 mb");
    configuration.setString("taskmanager.memory.network.min", "128 mb");
    configuration.setString("taskmanager.memory.network.max", "128 mb");
    configuration.setString("rest.bind-address", "127.0.0.1");
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(parallelism, configuration);
    environment.setParallelism(parallelism);
    environment.setMaxParallelism(128);
    return environment;
  }

  private static DataStream<byte[]> words(StreamExecutionEnvironment environment, List<String> files) {
    Path[] paths = files.stream().map(Path::new).toArray(Path[]::new);
    return environment
        .fromSource(
            FileSource.forRecordStreamFormat(new TextLineInputFormat(), paths).build(),
            WatermarkStrategy.noWatermarks(), "lines", Types.STRING)
        .flatMap(new Split()).returns(Types.STRING).name("split")
        .keyBy(word -> word, Types.STRING)
        .transform("count", Encoded.TYPE, new CountWords());
  }

  private static DataStream<byte[]> generated(StreamExecutionEnvironment environment, String workload, List<String> numbers) {
    Generator generator = new Generator(
        Long.parseLong(numbers.get(0)), Long.parseLong(numbers.get(1)), Integer.parseInt(numbers.get(2)));
    DataStream<Rec> records =
        environment.fromSource(generator, WatermarkStrategy.noWatermarks(), "events", Rec.TYPE);
    if (workload.equals("w2")) {
      return records.keyBy(record -> record.key, Types.LONG).transform("count", Encoded.TYPE, new CountRecords());
    }
    return records
        .map(new Arithmetic()).returns(Rec.TYPE)
        .filter(new KeepHalf())
        .map(record -> record.value).returns(Encoded.TYPE);
  }

  /** Lower-case runs of ASCII letters. */
  static final class Split implements FlatMapFunction<String, String> {
    @Override
    public void flatMap(String line, Collector<String> out) {
      int length = line.length(), at = 0;
      while (at < length) {
        int end = at;
        boolean isLower = true;
        while (end < length && isLetter(line.charAt(end))) {
          isLower &= line.charAt(end) >= 'a';
          end++;
        }
        if (end > at) {
          String word = line.substring(at, end);
          out.collect(isLower ? word : word.toLowerCase(java.util.Locale.ROOT));
        }
        at = end + 1;
      }
    }

    private static boolean isLetter(char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
  }

  /** In place, which object reuse allows. */
  static final class Arithmetic implements MapFunction<Rec, Rec> {
    @Override
    public Rec map(Rec record) {
      record.number(0, record.number(0) * 3 + record.key);
      return record;
    }
  }

  static final class KeepHalf implements FilterFunction<Rec> {
    @Override
    public boolean filter(Rec record) {
      return record.number(0) >= 0;
    }
  }
}
