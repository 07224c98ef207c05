package peer;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.api.connector.source.SplitsAssignment;
import org.apache.flink.core.io.InputStatus;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/** The records of Regraft's generator, as {@code benches/src/workload.rs} has them. */
public final class Generator implements Source<Rec, Generator.Split, Integer> {
  private static final long GOLDEN = 0x9e3779b97f4a7c15L;
  private static final long SEED = 42;
  /** Records of one call of a reader. */
  private static final int BATCH = 256;

  final long rows;
  final long keys;
  final int splits;

  public Generator(long rows, long keys, int splits) {
    this.rows = rows;
    this.keys = keys;
    this.splits = splits;
  }

  static long mix(long z) {
    z += GOLDEN;
    z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
    z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
    return z ^ (z >>> 31);
  }

  /** Writes a record in place. */
  void record(int split, long offset, Rec record) {
    long base = mix(SEED ^ mix(split ^ mix(offset)));
    record.key = Hash.multiplyHigh(mix(base ^ GOLDEN), keys);
    long state = base ^ (GOLDEN * 2);
    for (int at = 0; at < 4; at++) {
      state += GOLDEN;
      record.number(at, mix(state));
    }
  }

  long splitRows(int split) {
    return rows / splits + (split < rows % splits ? 1 : 0);
  }

  public static final class Split implements SourceSplit {
    final int number;
    long offset;

    Split(int number, long offset) {
      this.number = number;
      this.offset = offset;
    }

    @Override public String splitId() { return "" + number; }
  }

  @Override public Boundedness getBoundedness() { return Boundedness.BOUNDED; }
  @Override public SourceReader<Rec, Split> createReader(SourceReaderContext context) { return new Reader(); }

  @Override
  public SplitEnumerator<Split, Integer> createEnumerator(SplitEnumeratorContext<Split> context) {
    return new Enumerator(context, 0);
  }

  @Override
  public SplitEnumerator<Split, Integer> restoreEnumerator(SplitEnumeratorContext<Split> context, Integer dealt) {
    return new Enumerator(context, dealt);
  }

  @Override
  public SimpleVersionedSerializer<Split> getSplitSerializer() {
    return new SimpleVersionedSerializer<>() {
      @Override public int getVersion() { return 1; }

      @Override
      public byte[] serialize(Split split) {
        return ByteBuffer.allocate(12).putInt(split.number).putLong(split.offset).array();
      }

      @Override
      public Split deserialize(int version, byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return new Split(buffer.getInt(), buffer.getLong());
      }
    };
  }

  @Override
  public SimpleVersionedSerializer<Integer> getEnumeratorCheckpointSerializer() {
    return new SimpleVersionedSerializer<>() {
      @Override public int getVersion() { return 1; }
      @Override public byte[] serialize(Integer dealt) { return ByteBuffer.allocate(4).putInt(dealt).array(); }
      @Override public Integer deserialize(int version, byte[] bytes) { return ByteBuffer.wrap(bytes).getInt(); }
    };
  }

  /** Deals the splits out once all readers are there. Its state is 1 when they have been dealt. */
  final class Enumerator implements SplitEnumerator<Split, Integer> {
    private final SplitEnumeratorContext<Split> context;
    private final Set<Integer> readers = new HashSet<>();
    private int dealt;

    Enumerator(SplitEnumeratorContext<Split> context, int dealt) {
      this.context = context;
      this.dealt = dealt;
    }

    @Override public void start() {}
    @Override public void handleSplitRequest(int subtask, String host) {}
    @Override public Integer snapshotState(long checkpoint) { return dealt; }
    @Override public void close() {}

    @Override
    public void addSplitsBack(List<Split> back, int subtask) {
      context.assignSplits(new SplitsAssignment<>(Map.of(subtask, back)));
    }

    @Override
    public void addReader(int subtask) {
      readers.add(subtask);
      int parallelism = context.currentParallelism();
      if (readers.size() < parallelism) {
        return;
      }
      if (dealt == 0) {
        Map<Integer, List<Split>> assignment = new HashMap<>();
        for (int split = 0; split < splits; split++) {
          assignment.computeIfAbsent(split % parallelism, unused -> new ArrayList<>()).add(new Split(split, 0));
        }
        context.assignSplits(new SplitsAssignment<>(assignment));
        dealt = 1;
      }
      for (int reader = 0; reader < parallelism; reader++) {
        context.signalNoMoreSplits(reader);
      }
    }
  }

  final class Reader implements SourceReader<Rec, Split> {
    private final List<Split> own = new ArrayList<>();
    private final CompletableFuture<Void> available = new CompletableFuture<>();
    private final Rec record = new Rec();
    private boolean noMore;
    private int next;

    @Override public void start() {}
    @Override public void close() {}

    @Override
    public InputStatus pollNext(ReaderOutput<Rec> output) {
      if (own.isEmpty()) {
        return noMore ? InputStatus.END_OF_INPUT : InputStatus.NOTHING_AVAILABLE;
      }
      if (next >= own.size()) {
        next = 0;
      }
      Split split = own.get(next);
      long limit = splitRows(split.number);
      long until = Math.min(limit, split.offset + BATCH);
      for (; split.offset < until; split.offset++) {
        record(split.number, split.offset, record);
        output.collect(record);
      }
      if (split.offset >= limit) {
        own.remove(next);
      } else {
        next++;
      }
      return InputStatus.MORE_AVAILABLE;
    }

    @Override
    public List<Split> snapshotState(long checkpoint) {
      List<Split> copies = new ArrayList<>();
      for (Split split : own) {
        copies.add(new Split(split.number, split.offset));
      }
      return copies;
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
      return own.isEmpty() && !noMore ? available : CompletableFuture.completedFuture(null);
    }

    @Override
    public void addSplits(List<Split> splits) {
      own.addAll(splits);
      available.complete(null);
    }

    @Override
    public void notifyNoMoreSplits() {
      noMore = true;
      available.complete(null);
    }
  }
}
