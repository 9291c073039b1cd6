//! Plans from JSON: a plan from a file keeps the rules of a plan.

use crate::check as rules;
use crate::gpu::Gpu;
use crate::limits::MAX_NODES;
use crate::plan::{Plan, Socket};

/// Bound of virtual CPUs, above that of any VMM.
const MAX_CPUS: u32 = 1 << 16;

/// Error for a text that is not a plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Invalid JSON, or JSON of another schema.
    #[error("{0}")]
    Json(String),
    /// JSON of a plan that no request can have.
    #[error("no request can have this plan: {0}")]
    Impossible(String),
}

impl Plan {
    /// Reads what `varia plan --json` prints.
    ///
    /// # Errors
    /// [`ReadError`], with the value that is wrong.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| ReadError::Json(error.to_string()))?;
        check(&plan).map_err(ReadError::Impossible)?;
        Ok(plan)
    }
}

fn check(plan: &Plan) -> Result<(), String> {
    rules::name(&plan.name).map_err(|error| error.to_string())?;
    let nodes = MAX_NODES as usize;
    let (sockets, gpus) = (plan.sockets.len(), plan.gpus.len());
    if sockets == 0 || sockets > nodes || gpus > nodes {
        return Err(format!("{sockets} sockets and {gpus} GPUs"));
    }
    plan.sockets.iter().try_for_each(socket)?;
    plan.gpus.iter().try_for_each(gpu)?;
    let ram = plan.sockets.iter().map(|socket| socket.memory.0);
    let windows = plan.gpus.iter().map(|gpu| gpu.window.0);
    for (what, mut sizes) in [
        ("RAM", ram.collect::<Vec<_>>()),
        ("windows", windows.collect()),
    ] {
        if sizes.drain(..).try_fold(0, u64::checked_add).is_none() {
            return Err(format!("{what} of more than 64 bits"));
        }
    }
    if !plan.aperture.0.is_power_of_two() {
        return Err(format!("an aperture of {}", plan.aperture));
    }
    if plan
        .distances
        .iter()
        .map(Vec::len)
        .chain([plan.distances.len()])
        .any(|len| len > nodes)
    {
        return Err(format!("distances of more than {nodes} nodes"));
    }
    Ok(())
}

fn socket(socket: &Socket) -> Result<(), String> {
    let Socket { vcpus, pins, .. } = socket;
    if vcpus.start > vcpus.end || vcpus.end > MAX_CPUS || pins.len() > vcpus.len() {
        return Err(format!("CPUs {vcpus:?} with {} pins", pins.len()));
    }
    Ok(())
}

fn gpu(gpu: &Gpu) -> Result<(), String> {
    let nodes = &gpu.memory.nodes;
    if nodes.start > nodes.end || nodes.end > MAX_NODES {
        return Err(format!("nodes {nodes:?}"));
    }
    for bar in &gpu.memory.device.bars {
        if bar.index > 5 || !bar.size.0.is_power_of_two() {
            return Err(format!("BAR{} of {}", bar.index, bar.size));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use varia_facts::{Arch, Bytes};

    use super::*;
    use crate::emulated::Emulated;
    use crate::gpu::PlannedBar;

    fn plan() -> Plan {
        let bar = PlannedBar {
            index: 4,
            size: Bytes(1 << 37),
        };
        Emulated {
            arch: Arch::Aarch64,
            cpus: 4,
            memory: Bytes(4 << 30),
            gpus: vec![("/run/gpu0".into(), vec![bar])],
            nodes_per_gpu: 8,
        }
        .plan()
        .expect("a plan")
    }

    #[test]
    fn a_plan_comes_back_from_its_json() {
        let plan = plan();
        let json = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(Plan::from_json(&json), Ok(plan));
    }

    #[test]
    fn what_is_no_plan_is_refused_with_what_is_wrong() {
        let refused = |change: fn(&mut Value), part: &str| {
            let mut json = serde_json::to_value(plan()).expect("JSON");
            change(&mut json);
            let error = Plan::from_json(&json.to_string())
                .expect_err(part)
                .to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(
            |json| json["schema"] = "varia-plan/2".into(),
            "varia-plan/2",
        );
        refused(|json| json["name"] = "a;b".into(), "a;b");
        refused(|json| json["sockets"] = json!([]), "0 sockets");
        refused(
            |json| json["sockets"][0]["vcpus"]["end"] = u32::MAX.into(),
            "4294967295",
        );
        refused(
            |json| json["sockets"][0]["pins"] = json!([1, 2, 3, 4, 5]),
            "5 pins",
        );
        refused(
            |json| json["gpus"][0]["memory"]["nodes"]["end"] = 129.into(),
            "129",
        );
        refused(
            |json| json["gpus"][0]["memory"]["nodes"]["start"] = 10.into(),
            "10..9",
        );
        refused(
            |json| json["gpus"][0]["memory"]["device"]["bars"][0]["size"] = 3.into(),
            "3 bytes",
        );
        refused(|json| json["aperture"] = 0.into(), "0 bytes");
        refused(
            |json| json["distances"] = json!(vec![0; 129].iter().map(|_| [10]).collect::<Vec<_>>()),
            "128",
        );
        refused(
            |json| {
                let mut second = json["sockets"][0].clone();
                second["memory"] = u64::MAX.into();
                json["sockets"]
                    .as_array_mut()
                    .expect("sockets")
                    .push(second);
            },
            "64 bits",
        );
        assert!(matches!(Plan::from_json("{"), Err(ReadError::Json(_))));
    }
}
