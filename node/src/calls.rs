//! Calls of the kubelet's services. The build script writes the services from this table; a test
//! compares the table with `proto/`.

/// A call: name, input, output, and true if the output is a stream.
pub(crate) type Call = (&'static str, &'static str, &'static str, bool);

/// Services: package, module of the messages, name, calls.
pub(crate) const SERVICES: [(&str, &str, &str, &[Call]); 3] = [
    (
        "v1beta1",
        "device_plugin_api",
        "Registration",
        &[("Register", "RegisterRequest", "Empty", false)],
    ),
    (
        "v1beta1",
        "device_plugin_api",
        "DevicePlugin",
        &[
            (
                "GetDevicePluginOptions",
                "Empty",
                "DevicePluginOptions",
                false,
            ),
            ("ListAndWatch", "Empty", "ListAndWatchResponse", true),
            (
                "GetPreferredAllocation",
                "PreferredAllocationRequest",
                "PreferredAllocationResponse",
                false,
            ),
            ("Allocate", "AllocateRequest", "AllocateResponse", false),
            (
                "PreStartContainer",
                "PreStartContainerRequest",
                "PreStartContainerResponse",
                false,
            ),
        ],
    ),
    (
        "v1",
        "pod_resources_api",
        "PodResourcesLister",
        &[(
            "List",
            "ListPodResourcesRequest",
            "ListPodResourcesResponse",
            false,
        )],
    ),
];
