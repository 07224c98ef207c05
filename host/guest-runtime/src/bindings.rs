//! The generated bindings of `wit/`: nothing by hand. Inputs of exports are borrowed slices, so that a batch is copied
//! once, into the guest's memory.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "operator",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "regraft:operator/state": trappable,
    },
});
