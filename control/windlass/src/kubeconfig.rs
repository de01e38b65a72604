//! `windlass kubeconfig`: the administrator's kubeconfig, for a copy of it elsewhere.

use crate::cli::KubeconfigFlags;
use crate::{output, settings};
use anyhow::{Context as _, bail};

pub(crate) fn run(flags: &KubeconfigFlags) -> anyhow::Result<()> {
    let path = settings::admin_kubeconfig(&flags.data_dir);
    if !path.exists() {
        bail!("there is no {}: has `windlass server` been started on this machine?", path.display());
    }
    let mut kubeconfig = pki::Kubeconfig::read(&path)?;
    if let Some(server) = &flags.server {
        node::cluster_info::parse_server(server)?;
        kubeconfig.clusters.iter_mut().for_each(|c| c.cluster.server.clone_from(server));
    }
    output::print(flags.output, &kubeconfig.to_yaml().context("write the kubeconfig")?, &kubeconfig)
}
