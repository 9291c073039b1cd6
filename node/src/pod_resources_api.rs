//! Messages and services of the kubelet's PodResources API, as `proto/podresources_v1.proto`
//! describes them; a test compares the fields.

/// Message `ListPodResourcesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodResourcesRequest {}

/// Message `ListPodResourcesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodResourcesResponse {
    /// Field `pod_resources`.
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// Message `PodResources`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodResources {
    /// Field `name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Field `namespace`.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Field `containers`.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// Message `ContainerResources`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerResources {
    /// Field `name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Field `devices`.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
}

/// Message `ContainerDevices`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerDevices {
    /// Field `resource_name`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// Field `device_ids`.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// Service, written by `tonic-build`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod services {
    include!(concat!(env!("OUT_DIR"), "/v1.PodResourcesLister.rs"));
}

pub use services::{pod_resources_lister_client, pod_resources_lister_server};
