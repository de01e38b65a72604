//! Pods: desired state to CRI calls, and the kubelet's HTTPS port.

pub mod node;
