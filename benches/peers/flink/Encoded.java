package peer;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;

/** Encodes emitted records as Regraft's SDK does: a number has one byte up to 250, else a mark and 2, 4 or 8 bytes. */
final class Encoded {
  static final TypeInformation<byte[]> TYPE = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

  private final ByteBuffer buffer = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);

  byte[] counted(String word, long count) {
    buffer.clear();
    byte[] bytes = word.getBytes(StandardCharsets.UTF_8);
    put(bytes.length);
    buffer.put(bytes);
    put(count);
    return taken();
  }

  byte[] counted(long key, long count, long sum) {
    buffer.clear();
    put(key);
    put(count);
    put(sum);
    return taken();
  }

  private void put(long number) {
    if (number >= 0 && number <= 250) {
      buffer.put((byte) number);
    } else if (number >= 0 && number <= 0xffff) {
      buffer.put((byte) 251).putShort((short) number);
    } else if (number >= 0 && number <= 0xffffffffL) {
      buffer.put((byte) 252).putInt((int) number);
    } else {
      buffer.put((byte) 253).putLong(number);
    }
  }

  private byte[] taken() {
    byte[] bytes = new byte[buffer.position()];
    buffer.flip().get(bytes);
    return bytes;
  }
}
