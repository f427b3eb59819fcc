//! Messages between members over etcd's peer protocol.
