package peer;

/** XXH3-64 with seed 0 of 4 to 128 bytes. */
final class Hash {
  private static final byte[] SECRET = java.util.HexFormat.of().parseHex(
      "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
          + "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
          + "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
          + "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364");
  private static final long PRIME = 0x9e3779b185ebca87L;

  private Hash() {}

  static long xxh3(byte[] bytes) {
    int length = bytes.length;
    if (length >= 4 && length <= 8) {
      return upTo8(bytes);
    } else if (length >= 9 && length <= 16) {
      return upTo16(bytes);
    } else if (length >= 17 && length <= 128) {
      return upTo128(bytes);
    }
    throw new IllegalArgumentException("expected 4 to 128 bytes, found " + length);
  }

  /** The high half of the product of two unsigned numbers. */
  static long multiplyHigh(long a, long b) {
    return Math.multiplyHigh(a, b) + (b & (a >> 63)) + (a & (b >> 63));
  }

  private static long upTo8(byte[] bytes) {
    int length = bytes.length;
    long sum = int32(bytes, length - 4) + (int32(bytes, 0) << 32);
    long hash = sum ^ secret(8) ^ secret(16);
    hash ^= Long.rotateLeft(hash, 49) ^ Long.rotateLeft(hash, 24);
    hash *= 0x9fb21c651e98df25L;
    hash ^= (hash >>> 35) + length;
    hash *= 0x9fb21c651e98df25L;
    return hash ^ (hash >>> 28);
  }

  private static long upTo16(byte[] bytes) {
    int length = bytes.length;
    long low = int64(bytes, 0) ^ secret(24) ^ secret(32);
    long high = int64(bytes, length - 8) ^ secret(40) ^ secret(48);
    return avalanche(length + Long.reverseBytes(low) + high + fold(low, high));
  }

  private static long upTo128(byte[] bytes) {
    int length = bytes.length;
    long hash = length * PRIME;
    // Pairs of 16 bytes, from both ends towards the middle.
    for (int pair = (length - 1) / 32; pair >= 0; pair--) {
      hash += mix16(bytes, pair * 16, pair * 32) + mix16(bytes, length - 16 - pair * 16, pair * 32 + 16);
    }
    return avalanche(hash);
  }

  private static long mix16(byte[] bytes, int at, int secret) {
    return fold(int64(bytes, at) ^ secret(secret), int64(bytes, at + 8) ^ secret(secret + 8));
  }

  private static long fold(long a, long b) {
    return (a * b) ^ multiplyHigh(a, b);
  }

  private static long avalanche(long hash) {
    hash ^= hash >>> 37;
    hash *= 0x165667919e3779f9L;
    return hash ^ (hash >>> 32);
  }

  private static long secret(int at) {
    return int64(SECRET, at);
  }

  private static long int64(byte[] bytes, int at) {
    return (long) Rec.LONGS.get(bytes, at);
  }

  private static long int32(byte[] bytes, int at) {
    return (bytes[at] & 0xffL) | (bytes[at + 1] & 0xffL) << 8 | (bytes[at + 2] & 0xffL) << 16 | (bytes[at + 3] & 0xffL) << 24;
  }
}
