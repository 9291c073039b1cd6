//! Code of the kubelet's services, from a table of their calls. `proto/` has the descriptions; a
//! test compares this table and the messages in `src/` with them.

#[path = "src/calls.rs"]
mod calls;

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=src/calls.rs");
    for (package, api, service, calls) in calls::SERVICES {
        let mut builder = Service::builder().name(service).package(package);
        for (call, input, output, streams) in calls {
            let method = Method::builder()
                .name(snake(call))
                .route_name(call)
                .input_type(format!("crate::{api}::{input}"))
                .output_type(format!("crate::{api}::{output}"))
                .codec_path("tonic_prost::ProstCodec");
            let method = if *streams {
                method.server_streaming()
            } else {
                method
            };
            builder = builder.method(method.build());
        }
        Builder::new()
            .build_transport(false)
            .compile(&[builder.build()]);
    }
}

/// `list_and_watch` for `ListAndWatch`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
