//! Compiles the CRI and containerd event definitions without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/cri-v1.proto", "proto/containerd-events.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".runtime.v1.ExecSyncResponse").compile_fds(files)?;
    Ok(())
}
