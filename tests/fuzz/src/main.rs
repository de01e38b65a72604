//! libFuzzer's program; `FUZZ_TARGET` names the target.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let read = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let known = fuzz::TARGETS.iter().find(|target| target.name == name);
        known.map(|target| target.read).unwrap_or_else(|| panic!("FUZZ_TARGET names no target: {name:?}"))
    });
    read(bytes);
});
