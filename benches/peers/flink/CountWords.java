package peer;

import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/** Counts words, and emits the count of each once, at the end. */
final class CountWords extends AbstractStreamOperator<byte[]> implements OneInputStreamOperator<String, byte[]>, BoundedOneInput {
  private transient ValueStateDescriptor<Long> descriptor;
  private transient ValueState<Long> count;

  @Override
  public void open() throws Exception {
    super.open();
    descriptor = new ValueStateDescriptor<>("count", Types.LONG);
    count = getPartitionedState(descriptor);
  }

  @Override
  public void processElement(StreamRecord<String> element) throws Exception {
    Long before = count.value();
    count.update(before == null ? 1L : before + 1);
  }

  @Override
  public void endInput() throws Exception {
    Encoded encoded = new Encoded();
    this.<String>getKeyedStateBackend().applyToAllKeys(
        VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, descriptor,
        (word, state) -> output.collect(new StreamRecord<>(encoded.counted(word, state.value()))));
  }
}
