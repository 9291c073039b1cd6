//! Comparison of the messages and calls with `proto/`.

use std::collections::BTreeMap;

use crate::calls::SERVICES;

/// Fields of each message: kind, tag.
type Messages = BTreeMap<String, Vec<(String, String)>>;

/// A name without the differences that Rust's spelling makes.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

fn described(proto: &str) -> Messages {
    let mut messages = Messages::new();
    let mut current = None;
    for line in proto.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("message ") {
            let name = plain(rest.split(' ').next().unwrap());
            messages.insert(name.clone(), Vec::new());
            current = (!rest.ends_with("{}")).then_some(name);
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some((field, tag))) = (&current, line.split_once(" = ")) {
            let (kind, field) = field.rsplit_once(' ').unwrap();
            let kind = match kind.split(' ').collect::<Vec<_>>()[..] {
                ["repeated", kind] => format!("repeated {}", plain(kind)),
                ["map<string,", "string>"] => "map".to_owned(),
                [kind] => plain(kind),
                _ => panic!("{line}"),
            };
            let tag = tag.trim_end_matches(';');
            let list = messages.get_mut(name).unwrap();
            list.push((format!("{} {kind}", plain(field)), tag.to_owned()));
        }
    }
    messages
}

fn written(source: &str) -> Messages {
    let mut messages = Messages::new();
    let (mut current, mut attribute) = (String::new(), String::new());
    for line in source.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = plain(rest.split(' ').next().unwrap());
            messages.insert(current.clone(), Vec::new());
        } else if line.starts_with("#[prost(") {
            attribute = line.to_owned();
        } else if let Some((field, kind)) = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(": "))
        {
            let kind = kind.trim_end_matches(',');
            let inner = |kind: &str| {
                let inner = kind.split_once('<').unwrap().1.trim_end_matches('>');
                plain(inner)
            };
            let scalar = |kind: &str| match kind {
                "i32" => "int32".to_owned(),
                "i64" => "int64".to_owned(),
                kind => plain(kind),
            };
            let kind = match kind {
                kind if kind.starts_with("Vec<") => format!("repeated {}", inner(kind)),
                kind if kind.starts_with("Option<") => inner(kind),
                kind if kind.starts_with("BTreeMap<") => "map".to_owned(),
                kind => scalar(kind),
            };
            let tag = attribute.split_once("tag = \"").unwrap().1;
            let tag = tag.split('"').next().unwrap().to_owned();
            let list = messages.get_mut(&current).unwrap();
            list.push((format!("{} {kind}", plain(field)), tag));
        }
    }
    messages
}

#[test]
fn messages_have_the_fields_of_their_descriptions() {
    for (proto, source, count) in [
        (
            include_str!("../proto/deviceplugin_v1beta1.proto"),
            include_str!("device_plugin_api.rs"),
            20,
        ),
        (
            include_str!("../proto/podresources_v1.proto"),
            include_str!("pod_resources_api.rs"),
            5,
        ),
    ] {
        let described = described(proto);
        assert_eq!(described.len(), count);
        assert_eq!(written(source), described);
    }
}

#[test]
fn services_have_the_calls_of_their_descriptions() {
    let protos = [
        include_str!("../proto/deviceplugin_v1beta1.proto"),
        include_str!("../proto/podresources_v1.proto"),
    ];
    let mut described = Vec::new();
    for proto in protos {
        let package = proto.lines().find_map(|line| line.strip_prefix("package "));
        let package = package.unwrap().trim_end_matches(';');
        let mut service = "";
        for line in proto.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split(' ').next().unwrap();
            } else if line.starts_with("rpc ") {
                described.push(format!("{package} {service} {line}"));
            }
        }
    }
    let mut written = Vec::new();
    for (package, _, service, calls) in SERVICES {
        for (name, input, output, streams) in calls {
            let stream = if *streams { "stream " } else { "" };
            written.push(format!(
                "{package} {service} rpc {name}({input}) returns ({stream}{output}) {{}}"
            ));
        }
    }
    assert_eq!(written, described);
}
