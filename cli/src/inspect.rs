//! `varia inspect`: a VM's view of a device, and the facts of the chip.

use serde::Serialize;
use varia_core::{BarSpace, Device};
use varia_facts::{Bytes, PlatformFacts};
use varia_serve::{Endpoint, View};
use varia_silicon::profile::Mark;
use varia_spec::vfio::{OFFSET_SHIFT, RegionCapability, RegionIndex, region_flags};
use varia_variant::{MemoryType, Region};

use crate::{
    Failure,
    args::InspectArgs,
    device::{Given, Made, make},
    drawing::{Drawing, Drawn},
    files,
    output::print,
};

/// The version of the JSON's schema. A field may be added within a version.
const SCHEMA: &str = "varia-inspect/1";

/// The printed inspection; the JSON's schema. Sizes and addresses are in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    schema: &'static str,
    profile: &'static str,
    title: &'static str,
    device: String,
    /// Memory outside every BAR, if the chip has any.
    memory: Option<Memory>,
    variant: Option<&'static str>,
    /// Reason for the selection of the variant.
    selected: Option<String>,
    /// Extensions over the variant.
    extensions: Vec<&'static str>,
    /// Capabilities in the device's info: id and version.
    capabilities: Vec<(u16, u16)>,
    /// Number of bits of a file position that hold the offset in a region.
    offset_shift: u32,
    /// Facts of the platform, as `--platform` takes them.
    platform: Option<PlatformFacts>,
    /// Reason of the variant for not serving the device.
    declined: Option<String>,
    /// Readiness method of the device's memory.
    readiness: Option<String>,
    bars: Vec<InspectedBar>,
    /// Device-specific regions.
    regions: Vec<InspectedRegion>,
    /// Offset of the capability of a GPUDirect clique, if one was asked for.
    clique_capability: Option<u16>,
    facts: Vec<Fact>,
}

#[derive(Debug, Serialize)]
struct Memory {
    base: u64,
    size: u64,
}

#[derive(Debug, Serialize)]
struct InspectedBar {
    index: u32,
    size: u64,
    /// Bytes that can be mapped; the size itself unless the BAR is larger than its memory.
    length: u64,
    kind: &'static str,
    /// The variant's name of the memory behind the BAR: `usemem` or `resmem`.
    memory: Option<&'static str>,
    /// Host-physical address of that memory.
    base: Option<u64>,
}

#[derive(Debug, Serialize)]
struct InspectedRegion {
    index: u32,
    size: u64,
    /// Type and subtype.
    kind: u32,
    subtype: u32,
    read: bool,
    write: bool,
    map: bool,
    /// Address of the NVLink2 target, equal for a GPU and its bridges.
    target_address: Option<u64>,
    link_speed: Option<u32>,
    name: &'static str,
    /// Host-physical address of the memory that the region is.
    base: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Fact {
    what: String,
    sourced: bool,
    why: &'static str,
}

/// Prints the inspection.
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let made = make(
        &args.device,
        &args.behaviour,
        View::Virtual,
        false,
        Given::default(),
    )?;
    let inspection = Inspection::new(&made)?;
    let mut text = if args.json {
        serde_json::to_string_pretty(&inspection)? + "\n"
    } else {
        inspection.text()
    };
    let drawing = drawing(&made);
    let drawn = |drawing: &&Drawing| !args.json && !drawing.regions.is_empty();
    if let Some(drawing) = drawing.as_ref().filter(drawn) {
        text += &format!("\n{}", drawing.text(24));
    }
    if let Some(path) = &args.svg {
        let Some(drawing) = &drawing else {
            let name = made.profile.name;
            let text = format!("a {name} has no coherent memory to draw: leave out --svg");
            return Err(text.into());
        };
        files::write(path, drawing.svg().as_bytes())?;
        if !args.json {
            text += &format!("\ndrawn to {}\n", path.display());
        }
    }
    print(&text)
}

/// The memory regions that the variant makes, in the order of their memory.
pub(crate) fn regions(made: &Made) -> Vec<Drawn> {
    let memory = made.silicon.coherent_memory();
    let base = memory.map_or(0, |memory| memory.base.0);
    let mut regions: Vec<_> = (0..made.endpoint.info().num_regions)
        .map(RegionIndex)
        .filter_map(|index| match made.endpoint.region(index) {
            Region::Memory(memory) => Some(Drawn {
                name: memory.name(),
                index: index.0,
                offset: memory.base().0.saturating_sub(base),
                length: memory.length(),
                size: memory.size().0,
                cached: memory.memory() == MemoryType::Cached,
            }),
            Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
        })
        .collect();
    regions.sort_by_key(|region| region.offset);
    regions
}

/// All BARs that a VM sees.
pub(crate) fn bars(made: &Made) -> Result<Vec<varia_plan::PlannedBar>, Failure> {
    let mut bars = Vec::new();
    for index in 0..6 {
        let info = made.endpoint.region_info(RegionIndex(index.into()));
        let size = Bytes(info.map_err(|errno| errno.to_string())?.info.size);
        if size.0 > 0 {
            bars.push(varia_plan::PlannedBar { index, size });
        }
    }
    Ok(bars)
}

/// The layout's drawing; `None` for a chip without coherent memory.
fn drawing(made: &Made) -> Option<Drawing> {
    let memory = made.silicon.coherent_memory()?;
    let size = memory.bytes.len();
    Some(Drawing {
        title: format!(
            "{}: how a VM sees {} of coherent memory",
            made.profile.title,
            Bytes(size)
        ),
        base: memory.base.0,
        size,
        regions: regions(made),
    })
}

/// Names of the extensions over the variant.
fn extensions(endpoint: &Endpoint) -> Vec<&'static str> {
    let all = [
        ("gpudirect-clique", endpoint.clique().is_some()),
        ("zdev", endpoint.zdev().is_some()),
    ];
    let chosen = all.into_iter().filter(|(_, is_chosen)| *is_chosen);
    chosen.map(|(name, _)| name).collect()
}

/// Id and version of each capability of the device.
fn capabilities(endpoint: &Endpoint) -> Vec<(u16, u16)> {
    let capabilities = endpoint.capabilities().into_iter();
    capabilities.map(|c| (c.id, c.version)).collect()
}

/// The device-specific regions.
fn device_specific(made: &Made) -> Result<Vec<InspectedRegion>, Failure> {
    let mut regions = Vec::new();
    for index in RegionIndex::COUNT..made.endpoint.info().num_regions {
        let index = RegionIndex(index);
        let info = made.endpoint.region_info(index);
        let info = info.map_err(|errno| errno.to_string())?.info;
        let (name, base) = match made.endpoint.region(index) {
            Region::Memory(memory) => (memory.name(), Some(memory.base().0)),
            Region::Composed(region) => (region.name(), None),
            Region::Registers(registers) => (registers.name(), None),
            Region::Base | Region::Absent => continue,
        };
        let Some(region_type) = info.region_type else {
            continue;
        };
        let allows = |flag| info.flags & flag != 0;
        let (mut target_address, mut link_speed) = (None, None);
        for capability in info.capabilities.iter().flatten() {
            match capability {
                RegionCapability::TargetAddress(target) => target_address = Some(*target),
                RegionCapability::LinkSpeed(speed) => link_speed = Some(*speed),
            }
        }
        regions.push(InspectedRegion {
            index: index.0,
            size: info.size,
            kind: region_type.kind,
            subtype: region_type.subtype,
            read: allows(region_flags::READ),
            write: allows(region_flags::WRITE),
            map: allows(region_flags::MMAP),
            target_address,
            link_speed,
            name,
            base,
        });
    }
    Ok(regions)
}

impl InspectedRegion {
    fn line(&self) -> String {
        let allowed = [
            (self.read, "read"),
            (self.write, "written"),
            (self.map, "mapped"),
        ];
        let allowed = allowed.into_iter().filter(|(allowed, _)| *allowed);
        let allowed: Vec<_> = allowed.map(|(_, word)| word).collect();
        let base = self.base.map(|base| format!(" at {base:#x}"));
        let target = self.target_address;
        let target = target.map(|target| format!(", target address {target:#x}"));
        let speed = self.link_speed.map(|speed| format!(", link speed {speed}"));
        format!(
            "region {:<9} {}, type {:#x} subtype {:#x}, can be {}: {}{}{}{}\n",
            self.index,
            Bytes(self.size),
            self.kind,
            self.subtype,
            allowed.join(" and "),
            self.name,
            base.unwrap_or_default(),
            target.unwrap_or_default(),
            speed.unwrap_or_default()
        )
    }
}

impl Inspection {
    pub(crate) fn new(made: &Made) -> Result<Self, Failure> {
        let endpoint = &made.endpoint;
        let mut bars = Vec::new();
        for index in 0..6 {
            let info = endpoint
                .region_info(RegionIndex(index))
                .map_err(|errno| errno.to_string())?;
            if info.info.size == 0 {
                continue;
            }
            let memory = match endpoint.region(RegionIndex(index)) {
                Region::Memory(memory) => Some(memory),
                Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
            };
            let region = endpoint.region(RegionIndex(index));
            let spec = made.silicon.bar(index as u8);
            bars.push(InspectedBar {
                index,
                size: info.info.size,
                length: memory.map_or(info.info.size, |memory| memory.length()),
                kind: match (region, spec.map(|spec| (spec.space, spec.prefetchable))) {
                    (Region::Memory(_), _) | (_, Some((BarSpace::Memory64, true))) => {
                        "64-bit prefetchable memory"
                    }
                    (Region::Registers(_), None) | (_, Some((BarSpace::Io, _))) => "I/O ports",
                    (_, Some((BarSpace::Memory64, false))) => "64-bit memory",
                    (_, Some((BarSpace::Memory32, true))) => "32-bit prefetchable memory",
                    (_, _) => "32-bit memory",
                },
                memory: memory.map(|memory| memory.name()),
                base: memory.map(|memory| memory.base().0),
            });
        }
        let regions = device_specific(made)?;
        let profile = made.profile;
        let readiness = endpoint
            .variant()
            .and_then(|variant| Some(variant.ready_when()?.to_string()));
        Ok(Self {
            schema: SCHEMA,
            profile: profile.name,
            title: profile.title,
            device: format!(
                "{:04x}:{:04x}",
                profile.vendor_id.value, profile.device_id.value
            ),
            memory: made.silicon.coherent_memory().map(|memory| Memory {
                base: memory.base.0,
                size: memory.bytes.len(),
            }),
            variant: endpoint.variant_name(),
            selected: endpoint.selected().map(|reason| reason.to_string()),
            extensions: extensions(endpoint),
            capabilities: capabilities(endpoint),
            offset_shift: endpoint.offset_shift(),
            platform: made.silicon.platform_facts().cloned(),
            declined: endpoint.declined().map(|reason| reason.to_string()),
            readiness,
            bars,
            regions,
            clique_capability: endpoint.clique().map(|clique| clique.offset()),
            facts: profile
                .marks()
                .into_iter()
                .map(|(what, mark)| match mark {
                    Mark::Sourced(why) => Fact {
                        what,
                        sourced: true,
                        why,
                    },
                    Mark::Assumed(why) => Fact {
                        what,
                        sourced: false,
                        why,
                    },
                })
                .collect(),
        })
    }

    fn text(&self) -> String {
        let mut out = format!("{}: {} [{}]\n", self.profile, self.title, self.device);
        if let Some(memory) = &self.memory {
            let size = Bytes(memory.size);
            out += &format!("coherent memory  {size} at {:#x}\n", memory.base);
        }
        if let Some(variant) = self.variant {
            out += &format!("variant          {variant}\n");
        }
        if let Some(reason) = &self.selected {
            out += &format!("selected by      {reason}\n");
        }
        if !self.extensions.is_empty() {
            out += &format!("extensions       {}\n", self.extensions.join(", "));
        }
        if let Some(reason) = &self.declined {
            out += &format!("declined         {reason}\n");
        }
        if let Some(readiness) = &self.readiness {
            out += &format!("ready when       {readiness}\n");
        }
        for bar in &self.bars {
            out += &format!(
                "BAR{}             {}, {}",
                bar.index,
                Bytes(bar.size),
                bar.kind
            );
            if let (Some(memory), Some(base)) = (bar.memory, bar.base) {
                out += &format!(": {memory}, {} at {base:#x}", Bytes(bar.length));
            }
            out.push('\n');
        }
        for region in &self.regions {
            out += &region.line();
        }
        if self.offset_shift != OFFSET_SHIFT {
            out += &format!("file positions   region << {}\n", self.offset_shift);
        }
        if let Some(at) = self.clique_capability {
            out += &format!("GPUDirect clique in the capability at {at:#x}\n");
        }
        let assumed = self.facts.iter().filter(|fact| !fact.sourced).count();
        out += &format!(
            "{} of {} facts of the chip have a public source, {assumed} are assumed (--json lists them)\n",
            self.facts.len() - assumed,
            self.facts.len()
        );
        out
    }
}
