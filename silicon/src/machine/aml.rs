//! An SSDT with the `_DSD` properties of devices, as firmware ships it: ACPI 6.5 section 20.

/// Device properties, daffd814-6eba-4d8c-8a91-bc9bbf4aa301.
const PROPERTIES: [u8; 16] = [
    0x14, 0xd8, 0xff, 0xda, 0xba, 0x6e, 0x8c, 0x4d, 0x8a, 0x91, 0xbc, 0x9b, 0xbf, 0x4a, 0xa3, 0x01,
];
const NAME: u8 = 0x08;
const BYTE: u8 = 0x0a;
const STRING: u8 = 0x0d;
const QWORD: u8 = 0x0e;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const MULTI_NAME: u8 = 0x2f;

/// A table of these contents.
pub(super) fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend_from_slice(&(36 + body.len() as u32).to_le_bytes());
    // revision 2: integers have 64 bits; the checksum follows
    table.extend_from_slice(&[2, 0]);
    table.extend_from_slice(b"VARIA GPUS    \x01\0\0\0VARI\x01\0\0\0");
    table.extend_from_slice(body);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = table.get_mut(9) {
        *checksum = sum.wrapping_neg();
    }
    table
}

/// `Scope (path) { Name (_DSD, ...) }`, the path as segments of four characters.
pub(super) fn properties(path: &[&str], properties: &[(&str, u64)]) -> Vec<u8> {
    let pairs = properties.iter().map(|(name, value)| {
        let mut pair = vec![STRING];
        pair.extend_from_slice(name.as_bytes());
        pair.extend_from_slice(&[0, QWORD]);
        pair.extend_from_slice(&value.to_le_bytes());
        package(2, &pair)
    });
    let pairs: Vec<_> = pairs.collect();
    let mut uuid = vec![BYTE, 16];
    uuid.extend_from_slice(&PROPERTIES);
    let mut dsd = with_length(BUFFER, &uuid);
    dsd.extend(package(pairs.len() as u8, &pairs.concat()));

    let mut scope = vec![b'\\', MULTI_NAME, path.len() as u8];
    scope.extend(path.iter().flat_map(|segment| segment.bytes()));
    scope.extend_from_slice(&[NAME, b'_', b'D', b'S', b'D']);
    scope.extend(package(2, &dsd));
    with_length(SCOPE, &scope)
}

fn package(count: u8, elements: &[u8]) -> Vec<u8> {
    with_length(PACKAGE, &[&[count], elements].concat())
}

/// An opcode, a PkgLength of three bytes (20 bits) and what it covers.
fn with_length(opcode: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len() + 3;
    let mut bytes = vec![
        opcode,
        0x80 | (len & 0xf) as u8,
        (len >> 4) as u8,
        (len >> 12) as u8,
    ];
    bytes.extend_from_slice(body);
    bytes
}
