package peer;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** The state of W2: count and sum of a key. */
public final class Total {
  public long count;
  public long sum;

  public static final class Serializer extends TypeSerializerSingleton<Total> {
    static final Serializer INSTANCE = new Serializer();

    @Override public boolean isImmutableType() { return false; }
    @Override public Total createInstance() { return new Total(); }
    @Override public Total copy(Total from) { return copy(from, new Total()); }
    @Override public int getLength() { return 16; }
    @Override public Total deserialize(DataInputView in) throws IOException { return deserialize(new Total(), in); }
    @Override public void copy(DataInputView in, DataOutputView out) throws IOException { out.write(in, 16); }
    @Override public TypeSerializerSnapshot<Total> snapshotConfiguration() { return new Snapshot(); }

    @Override
    public Total copy(Total from, Total to) {
      to.count = from.count;
      to.sum = from.sum;
      return to;
    }

    @Override
    public void serialize(Total total, DataOutputView out) throws IOException {
      out.writeLong(total.count);
      out.writeLong(total.sum);
    }

    @Override
    public Total deserialize(Total to, DataInputView in) throws IOException {
      to.count = in.readLong();
      to.sum = in.readLong();
      return to;
    }

    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Total> {
      public Snapshot() { super(() -> INSTANCE); }
    }
  }
}
