//! The targets of `make fuzz`. What each of them does is in the crate that it drives, in a module `fuzz`, where
//! `cargo test` runs it over the corpus; here is what only a fuzzing build has: libFuzzer, and an allocator that
//! counts.
#![allow(missing_docs)]

/// Runs `target` on `input`, and panics if that took more memory at once than `floor` and `factor` times the
/// input, in bytes.
pub fn run(target: fn(&[u8]), input: &[u8], floor: u64, factor: u64) {
    let used = allocation_counter::measure(|| target(input)).bytes_max;
    let max = floor + factor * input.len() as u64;
    assert!(
        used <= max,
        "{used} bytes of memory for {} of input, {max} may be",
        input.len()
    );
}

#[macro_export]
macro_rules! target {
    ($target:path, floor: $floor:expr, factor: $factor:expr) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            $crate::run($target, input, $floor, $factor);
        });
    };
}
