package peer;

import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFilterFunction;

/** Counts and hashes what it gets, and lets nothing through. */
final class Blackhole extends RichFilterFunction<byte[]> {
  private transient long records;
  private transient long checksum;

  @Override
  public void open(OpenContext context) {
    records = 0;
    checksum = 0;
  }

  @Override
  public boolean filter(byte[] value) {
    records++;
    checksum += Hash.xxh3(value);
    return false;
  }

  @Override
  public void close() {
    LongCounter records = new LongCounter(), checksum = new LongCounter();
    records.add(this.records);
    checksum.add(this.checksum);
    getRuntimeContext().addAccumulator("records", records);
    getRuntimeContext().addAccumulator("checksum", checksum);
  }
}
