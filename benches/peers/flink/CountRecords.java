package peer;

import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/** Counts and sums records by key, and emits the total of each once, at the end. */
final class CountRecords extends AbstractStreamOperator<byte[]> implements OneInputStreamOperator<Rec, byte[]>, BoundedOneInput {
  private transient ValueStateDescriptor<Total> descriptor;
  private transient ValueState<Total> total;

  @Override
  public void open() throws Exception {
    super.open();
    descriptor = new ValueStateDescriptor<>("total", Total.Serializer.INSTANCE);
    total = getPartitionedState(descriptor);
  }

  @Override
  public void processElement(StreamRecord<Rec> element) throws Exception {
    Rec record = element.getValue();
    Total total = this.total.value();
    if (total == null) {
      total = new Total();
    }
    total.count++;
    total.sum += record.number(0);
    this.total.update(total);
  }

  @Override
  public void endInput() throws Exception {
    Encoded encoded = new Encoded();
    this.<Long>getKeyedStateBackend().applyToAllKeys(
        VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, descriptor,
        (key, state) -> {
          Total total = state.value();
          output.collect(new StreamRecord<>(encoded.counted(key, total.count, total.sum)));
        });
  }
}
