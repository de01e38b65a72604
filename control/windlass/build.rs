//! Releases are linked to run at one address, as upstream's programs are: the loader then has nothing to relocate at a start, and megabytes of
//! addresses stay pages of the file, shared by server and agent, instead of memory of each. What is given up, a random address of the program's
//! code, guards memory errors; `unsafe` is denied but for a few lines.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
