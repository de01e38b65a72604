//! The lab: a cluster of nodes on one machine, each in namespaces of its own.
//!
//! A node sees what a virtual machine would see: its own network, process table, cgroup root, `/run`, `/var/lib/containerd`,
//! `/var/lib/kubelet`, `/etc/cni`; so everything runs with its default paths. One supervisor process holds the lab's network
//! (a bridge without a way out), the image registry and every node's PID 1: when it dies, the kernel ends all of them.
//!
//! - [`layout`]: where a lab keeps its files
//! - [`supervisor`]: the long-running process; [`control`]: the socket it answers on
//! - [`machine`]: starting a node from outside; [`init`]: its PID 1 inside
//! - [`cgroup`], [`network`], [`reap`]: kernel objects a lab makes, and how they go away
//! - [`image`], [`registry`]: container images made here and served to the nodes
//! - [`shell`]: running programs, with errors that say what failed
//! - [`up`]: bringing a cluster up and showing it
//! - [`chaos`]: three servers, of which one after another is killed, frozen or cut off
//! - [`restoring`]: a server's machine that is lost, and its snapshot on another; [`patience`]: waiting for what becomes true
//! - [`vm`]: a machine of the other lab, that of virtual machines (`vagrant/lab`)
//! - [`mod@bench`]: the figures of SPECIFICATION.md

pub mod bench;
pub mod cgroup;
pub mod chaos;
pub mod control;
pub mod image;
pub mod init;
pub mod layout;
pub mod machine;
pub mod network;
pub mod patience;
pub mod reap;
pub mod registry;
pub mod restoring;
pub mod shell;
pub mod supervisor;
pub mod up;
pub mod vm;
