//! Compiles the CRI, containerd event, CSI and plugin registration definitions without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "proto/cri-v1.proto",
            "proto/containerd-events.proto",
            "proto/csi-v1.proto",
            "proto/pluginregistration-v1.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure().bytes(".runtime.v1.ExecSyncResponse").compile_fds(files)?;
    Ok(())
}
