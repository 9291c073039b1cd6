//! Messages and services of the kubelet's device plugin API, as `proto/deviceplugin_v1beta1.proto`
//! describes them; a test compares the fields.

use std::collections::BTreeMap;

/// Message `Empty`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// Message `DevicePluginOptions`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DevicePluginOptions {
    /// Field `pre_start_required`.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// Field `get_preferred_allocation_available`.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// Message `RegisterRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterRequest {
    /// Field `version`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Field `endpoint`.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// Field `resource_name`.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// Field `options`.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// Message `ListAndWatchResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListAndWatchResponse {
    /// Field `devices`.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// Message `Device`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Device {
    /// Field `id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Field `health`.
    #[prost(string, tag = "2")]
    pub health: String,
    /// Field `topology`.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Message `TopologyInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TopologyInfo {
    /// Field `nodes`.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// Message `NumaNode`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NumaNode {
    /// Field `id`.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Message `PreferredAllocationRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreferredAllocationRequest {
    /// Field `container_requests`.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// Message `ContainerPreferredAllocationRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerPreferredAllocationRequest {
    /// Field `available_device_ids`.
    #[prost(string, repeated, tag = "1")]
    pub available_device_ids: Vec<String>,
    /// Field `must_include_device_ids`.
    #[prost(string, repeated, tag = "2")]
    pub must_include_device_ids: Vec<String>,
    /// Field `allocation_size`.
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// Message `PreferredAllocationResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreferredAllocationResponse {
    /// Field `container_responses`.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// Message `ContainerPreferredAllocationResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerPreferredAllocationResponse {
    /// Field `device_ids`.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Message `AllocateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateRequest {
    /// Field `container_requests`.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// Message `ContainerAllocateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAllocateRequest {
    /// Field `devices_ids`.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// Message `AllocateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateResponse {
    /// Field `container_responses`.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// Message `ContainerAllocateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAllocateResponse {
    /// Field `envs`.
    #[prost(btree_map = "string, string", tag = "1")]
    pub envs: BTreeMap<String, String>,
    /// Field `mounts`.
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    /// Field `devices`.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    /// Field `annotations`.
    #[prost(btree_map = "string, string", tag = "4")]
    pub annotations: BTreeMap<String, String>,
    /// Field `cdi_devices`.
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// Message `Mount`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mount {
    /// Field `container_path`.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Field `host_path`.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Field `read_only`.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// Message `DeviceSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceSpec {
    /// Field `container_path`.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Field `host_path`.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Field `permissions`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// Message `CdiDevice`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CdiDevice {
    /// Field `name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Message `PreStartContainerRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreStartContainerRequest {
    /// Field `devices_ids`.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// Message `PreStartContainerResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreStartContainerResponse {}

/// Services, written by `tonic-build`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod services {
    include!(concat!(env!("OUT_DIR"), "/v1beta1.DevicePlugin.rs"));
    include!(concat!(env!("OUT_DIR"), "/v1beta1.Registration.rs"));
}

pub use services::{
    device_plugin_client, device_plugin_server, registration_client, registration_server,
};
