//! A plan's topology as a picture: a column for each socket, its GPUs below it, and in each GPU
//! the memory-less nodes that its memory goes to.

use std::fmt::Display;

use varia_facts::egm_path;

use crate::gpu::{Gpu, Source};
use crate::plan::{Backing, Iommu, Plan, Socket};
use crate::xml::Element;

const MARGIN: u32 = 30;
/// Top of the sockets, below the title.
const TOP: u32 = 84;
const WIDTH: u32 = 330;
const GAP: u32 = 40;
const SOCKET: u32 = 92;
const GPU: u32 = 150;
/// Nodes in a row of a GPU, and the side of a node's square.
const ROW: u32 = 8;
const NODE: u32 = 28;

/// The topology as an SVG document.
#[must_use]
pub fn svg(plan: &Plan) -> String {
    let columns: Vec<(&Socket, Vec<&Gpu>)> = plan
        .sockets
        .iter()
        .map(|socket| {
            let own = plan.gpus.iter().filter(|gpu| gpu.socket == socket.node);
            (socket, own.collect())
        })
        .collect();
    let height = |gpus: &[&Gpu]| gpus.iter().map(|gpu| gpu_height(gpu) + GAP).sum::<u32>();
    let tallest = columns.iter().map(|(_, gpus)| height(gpus)).max();
    let bottom = TOP + SOCKET + tallest.unwrap_or(0) + MARGIN;
    let count = u32::try_from(columns.len()).unwrap_or(u32::MAX);
    let width = 2 * MARGIN + count * (WIDTH + GAP) - GAP;
    let mut svg = Element::new("svg")
        .with("xmlns", "http://www.w3.org/2000/svg")
        .with("viewBox", format!("0 0 {} {bottom}", width.max(560)))
        .with("font-family", "sans-serif")
        .with("font-size", 13)
        .child(
            Element::new("rect")
                .with("width", "100%")
                .with("height", "100%")
                .with("fill", "white"),
        )
        .child(bold(MARGIN, 34, &plan.name).with("font-size", 18))
        .child(text(MARGIN, 58, summary(plan)).with("fill", "#555"));
    let mut left = MARGIN;
    for (socket, gpus) in columns {
        let mut top = TOP + SOCKET;
        for gpu in &gpus {
            svg = svg.child(line(left + 20, top, top + GAP));
            top += GAP;
            svg = draw_gpu(svg, left, top, gpu, plan.iommu);
            top += gpu_height(gpu);
        }
        svg = draw_socket(svg, left, socket);
        left += WIDTH + GAP;
    }
    svg.to_string()
}

fn summary(plan: &Plan) -> String {
    let iommu = match plan.iommu {
        Iommu::None => "",
        Iommu::Type1 => ", IOMMU type1",
        Iommu::Iommufd { .. } => ", iommufd",
    };
    format!(
        "{}, {} CPUs, {} of RAM, {} nodes, aperture {}{iommu}",
        plan.arch,
        plan.cpus(),
        plan.ram(),
        plan.nodes(),
        plan.aperture
    )
}

fn draw_socket(svg: Element, left: u32, socket: &Socket) -> Element {
    let on = match (socket.host_node, socket.pins.as_slice()) {
        (Some(node), []) => format!("on the host's node {node}"),
        (Some(node), [first, .., last]) => {
            format!("on the host's node {node}, CPUs {first} to {last}")
        }
        (Some(node), [only]) => format!("on the host's node {node}, CPU {only}"),
        (None, _) => "anywhere on the host".to_owned(),
    };
    svg.child(bordered(left, TOP, WIDTH, SOCKET, "#e4edf8"))
        .child(bold(left + 12, TOP + 26, format!("node {}", socket.node)))
        .child(text(
            left + 12,
            TOP + 48,
            format!(
                "{} CPUs, {} of {}",
                socket.vcpus.len(),
                socket.memory,
                ram(socket.backing)
            ),
        ))
        .child(text(left + 12, TOP + 70, on).with("fill", "#555"))
}

/// Kind of a socket's RAM.
fn ram(backing: Backing) -> String {
    match backing {
        Backing::Pages => "RAM".to_owned(),
        Backing::HugePages(size) => format!("RAM, in pages of {size}"),
        Backing::Egm(pxm) => format!("RAM, from {}", egm_path(pxm)),
    }
}

fn gpu_height(gpu: &Gpu) -> u32 {
    let nodes = gpu.memory.nodes.end - gpu.memory.nodes.start;
    GPU + nodes.div_ceil(ROW).saturating_sub(1) * (NODE + 4)
}

fn draw_gpu(svg: Element, left: u32, top: u32, gpu: &Gpu, iommu: Iommu) -> Element {
    let memory = &gpu.memory;
    let source = match &memory.source {
        Source::Function(bdf) => format!("{} = {bdf}", memory.device.id),
        Source::VfioUser(_) => format!("{} (vfio-user)", memory.device.id),
    };
    let bars: Vec<_> = memory
        .device
        .bars
        .iter()
        .map(|bar| format!("BAR{} {}", bar.index, bar.size))
        .collect();
    let window = gpu.window;
    let port = match (gpu.bus, iommu) {
        (Some(bus), Iommu::Iommufd { smmu: true }) => {
            format!("root bus {bus} with an SMMUv3, window {window}")
        }
        (Some(bus), _) => format!("root bus {bus}, window {window}"),
        (None, _) => format!("window {window}"),
    };
    let mut svg = svg
        .child(bordered(left, top, WIDTH, gpu_height(gpu), "#eef6e6"))
        .child(bold(left + 12, top + 24, source))
        .child(text(left + 12, top + 46, port).with("fill", "#555"))
        .child(text(left + 12, top + 66, bars.join(", ")))
        .child(text(left + 12, top + 92, "nodes for its memory:").with("fill", "#555"));
    for (place, node) in (0..).zip(memory.nodes()) {
        let x = left + 12 + place % ROW * (NODE + 6);
        let y = top + 104 + place / ROW * (NODE + 4);
        svg = svg
            .child(bordered(x, y, NODE, NODE, "white"))
            .child(text(x + NODE / 2, y + NODE / 2 + 5, node).with("text-anchor", "middle"));
    }
    svg
}

fn bordered(x: u32, y: u32, width: u32, height: u32, fill: &str) -> Element {
    Element::new("rect")
        .with("x", x)
        .with("y", y)
        .with("width", width)
        .with("height", height)
        .with("rx", 4)
        .with("fill", fill)
        .with("stroke", "#333")
        .with("stroke-width", "0.8")
}

fn line(x: u32, from: u32, to: u32) -> Element {
    Element::new("line")
        .with("x1", x)
        .with("y1", from)
        .with("x2", x)
        .with("y2", to)
        .with("stroke", "#333")
}

fn text(x: u32, y: u32, what: impl Display) -> Element {
    Element::new("text").with("x", x).with("y", y).content(what)
}

fn bold(x: u32, y: u32, what: impl Display) -> Element {
    text(x, y, what).with("font-weight", "bold")
}
