//! The generated bindings of `wit/`: nothing by hand. Inputs of exports are borrowed slices, so that a batch is copied
//! once, into the guest's memory.
//!
//! The world has every optional interface; which of them a component exports is looked up one by one.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "everything",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "regraft:operator/state": trappable,
    },
});
