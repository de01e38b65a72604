//! libFuzzer's program: `FUZZ_TARGET` names the target, `FUZZ_CORPUS` the folder its seeds are put into first.

#![no_main]

use fuzz::{TARGETS, Target};
use std::path::PathBuf;
use std::sync::LazyLock;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = TARGETS.iter().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("FUZZ_TARGET names no target: {name:?}"))
});

fn plant() {
    let Some(corpus) = std::env::var_os("FUZZ_CORPUS").map(PathBuf::from) else { return };
    for (number, seed) in TARGET.seeds.iter().enumerate() {
        let file = corpus.join(format!("seed-{number}"));
        if let Err(error) = std::fs::write(&file, seed) {
            eprintln!("write {}: {error}", file.display());
        }
    }
}

libfuzzer_sys::fuzz_target!(init: plant(), |bytes: &[u8]| (TARGET.read)(bytes));
