package peer;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** A record of W2 and W3: an 8-byte key and a 32-byte value. */
public final class Rec {
  static final VarHandle LONGS = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
  public static final TypeInformation<Rec> TYPE = new Info();

  public long key;
  public final byte[] value = new byte[32];

  public long number(int at) {
    return (long) LONGS.get(value, at * 8);
  }

  public void number(int at, long number) {
    LONGS.set(value, at * 8, number);
  }

  public static final class Serializer extends TypeSerializerSingleton<Rec> {
    static final Serializer INSTANCE = new Serializer();

    @Override public boolean isImmutableType() { return false; }
    @Override public Rec createInstance() { return new Rec(); }
    @Override public Rec copy(Rec from) { return copy(from, new Rec()); }
    @Override public int getLength() { return 40; }
    @Override public Rec deserialize(DataInputView in) throws IOException { return deserialize(new Rec(), in); }
    @Override public void copy(DataInputView in, DataOutputView out) throws IOException { out.write(in, 40); }
    @Override public TypeSerializerSnapshot<Rec> snapshotConfiguration() { return new Snapshot(); }

    @Override
    public Rec copy(Rec from, Rec to) {
      to.key = from.key;
      System.arraycopy(from.value, 0, to.value, 0, 32);
      return to;
    }

    @Override
    public void serialize(Rec record, DataOutputView out) throws IOException {
      out.writeLong(record.key);
      out.write(record.value, 0, 32);
    }

    @Override
    public Rec deserialize(Rec to, DataInputView in) throws IOException {
      to.key = in.readLong();
      in.readFully(to.value, 0, 32);
      return to;
    }

    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Rec> {
      public Snapshot() { super(() -> INSTANCE); }
    }
  }

  public static final class Info extends TypeInformation<Rec> {
    @Override public boolean isBasicType() { return false; }
    @Override public boolean isTupleType() { return false; }
    @Override public int getArity() { return 1; }
    @Override public int getTotalFields() { return 1; }
    @Override public Class<Rec> getTypeClass() { return Rec.class; }
    @Override public boolean isKeyType() { return false; }
    @Override public TypeSerializer<Rec> createSerializer(SerializerConfig config) { return Serializer.INSTANCE; }
    @Override public String toString() { return "Rec"; }
    @Override public boolean equals(Object other) { return other instanceof Info; }
    @Override public int hashCode() { return 17; }
    @Override public boolean canEqual(Object other) { return other instanceof Info; }
  }
}
