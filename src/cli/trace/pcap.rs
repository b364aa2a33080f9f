//! A trace as a capture file. Each packet states that it is SIP and between which addresses it was sent, so that Wireshark decodes
//! as SIP even what arrived by TLS, whatever the port.
//!
//! The format is that of libpcap with link type 252 (exported PDUs): tags with 16 bits each for type and length, big-endian, then
//! the message.

use super::show::Show;
use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use strowger::control::TraceEvent;

/// `LINKTYPE_WIRESHARK_UPPER_PDU`.
const EXPORTED_PDU: u32 = 252;

/// The longest packet that a reader has to expect.
const LONGEST: u32 = 262_144;

const END: u16 = 0;
const DISSECTOR: u16 = 12;
const SOURCE_V4: u16 = 20;
const DESTINATION_V4: u16 = 21;
const SOURCE_V6: u16 = 22;
const DESTINATION_V6: u16 = 23;
const PORT_KIND: u16 = 24;
const SOURCE_PORT: u16 = 25;
const DESTINATION_PORT: u16 = 26;

/// Port types.
const TCP: u32 = 2;
const UDP: u32 = 3;

pub struct Pcap {
    out: Box<dyn Write>,
}

/// Creates a file that only its owner can read: it shows who calls whom. An existing file of that name is replaced, not written to:
/// others may have it open, or may read it. A pipe is written to, and so is a device such as /dev/null.
pub fn create(path: &Path) -> io::Result<Pcap> {
    let is_stream = |kind: FileType| kind.is_fifo() || kind.is_char_device();
    match fs::metadata(path) {
        Ok(found) if is_stream(found.file_type()) => {
            let stream = OpenOptions::new().write(true).open(path)?;
            // It may have been replaced meanwhile.
            return match is_stream(stream.metadata()?.file_type()) {
                true => Pcap::new(Box::new(stream)),
                false => Err(io::Error::other("it has just become another file")),
            };
        }
        Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => return Err(io::Error::other("it is neither a file nor a pipe")),
        _ => {}
    }
    // The creator of a link decides where it leads.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(io::Error::other("it is a symbolic link: name the file that it leads to"));
    }
    let (draft, file) = draft(path)?;
    let placed = Pcap::new(Box::new(file)).and_then(|pcap| fs::rename(&draft, path).map(|()| pcap));
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    placed
}

/// Creates a new file next to the final path.
fn draft(path: &Path) -> io::Result<(PathBuf, File)> {
    const TRIES: u32 = 16;
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let mut options = OpenOptions::new();
    // Neither opens an existing file nor follows a link.
    options.write(true).create_new(true).mode(0o600);
    let mut tried = 0;
    loop {
        let mut own = OsString::from(".");
        own.push(name);
        own.push(format!(".{}-{tried}", std::process::id()));
        let draft = path.with_file_name(own);
        match options.open(&draft) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tried < TRIES => tried += 1,
            opened => return opened.map(|file| (draft, file)),
        }
    }
}

impl Pcap {
    /// Writes the file header. Each packet is one write, so that the file is complete whenever it ends.
    pub fn new(mut out: Box<dyn Write>) -> io::Result<Pcap> {
        let mut head = Vec::new();
        head.extend(0xa1b2_c3d4u32.to_le_bytes());
        head.extend([2u16, 4].map(u16::to_le_bytes).concat());
        head.extend([0, 0, LONGEST, EXPORTED_PDU].map(u32::to_le_bytes).concat());
        out.write_all(&head)?;
        out.flush()?;
        Ok(Pcap { out })
    }
}

impl Show for Pcap {
    fn show(&mut self, event: &TraceEvent) -> io::Result<()> {
        // Decisions are not packets.
        let Some(packet) = packet(event) else {
            return Ok(());
        };
        self.out.write_all(&packet)?;
        self.out.flush()
    }
}

/// Returns a message with its packet header.
fn packet(event: &TraceEvent) -> Option<Vec<u8>> {
    let message = event.bytes()?;
    let address = |text: &Option<String>| -> Option<SocketAddr> { text.as_ref()?.parse().ok() };
    let (from, to) = (address(&event.from)?, address(&event.to)?);
    let mut tags = Vec::new();
    tag(DISSECTOR, b"sip\0", &mut tags);
    host([SOURCE_V4, SOURCE_V6], from.ip(), &mut tags);
    host([DESTINATION_V4, DESTINATION_V6], to.ip(), &mut tags);
    let kind = match event.transport.as_deref() {
        Some("udp") => UDP,
        _ => TCP,
    };
    tag(PORT_KIND, &kind.to_be_bytes(), &mut tags);
    tag(SOURCE_PORT, &u32::from(from.port()).to_be_bytes(), &mut tags);
    tag(DESTINATION_PORT, &u32::from(to.port()).to_be_bytes(), &mut tags);
    tag(END, b"", &mut tags);
    let length = (tags.len() + message.len()) as u32;
    let (seconds, us) = (event.time_us / 1_000_000, event.time_us % 1_000_000);
    let mut packet = [seconds as u32, us as u32, length, length].map(u32::to_le_bytes).concat();
    packet.extend(tags);
    packet.extend(message);
    Some(packet)
}

/// The length of `value` must be a multiple of four.
fn tag(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend(kind.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

fn host([v4, v6]: [u16; 2], ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => tag(v4, &ip.octets(), out),
        IpAddr::V6(ip) => tag(v6, &ip.octets(), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::trace::ladder::tests::{decision, message};

    #[test]
    fn bytes_of_a_packet() {
        let event = message(17, true, "1", "OPTIONS");
        let expected: [&[u8]; 9] = [
            b"\x80\x58\x44\x6a\x68\x42\0\0\x3b\0\0\0\x3b\0\0\0",
            b"\0\x0c\0\x04sip\0",
            b"\0\x14\0\x04\xc0\0\x02\x01",
            b"\0\x15\0\x04\xc0\0\x02\x09",
            b"\0\x18\0\x04\0\0\0\x03",
            b"\0\x19\0\x04\0\0\x13\xc4",
            b"\0\x1a\0\x04\0\0\x13\xc4",
            b"\0\0\0\0",
            b"OPTIONS",
        ];
        assert_eq!(packet(&event), Some(expected.concat()));
        assert_eq!(packet(&decision(0, "chosen")), None);
    }

    #[test]
    fn the_file_is_its_owner_s() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.pcap");
        create(&path).unwrap().show(&message(0, true, "1", "x")).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[20..24], [252, 0, 0, 0]);
    }

    #[test]
    fn what_was_there_is_replaced_and_not_written_to() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.pcap");
        let other_name = folder.path().join("other");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        fs::hard_link(&path, &other_name).unwrap();
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap().len(), 24);
        assert_eq!(fs::read(&other_name).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft stays");
    }

    #[test]
    fn no_link_leads_it_astray() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = || create(&link).err().unwrap().to_string();
        assert!(refused().contains("symbolic link"), "it leads nowhere yet");
        assert!(!target.exists());
        fs::write(&target, "old").unwrap();
        assert!(refused().contains("symbolic link"));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(create(folder.path()).err().unwrap().kind(), ErrorKind::IsADirectory);
        assert!(create(&folder.path().join("none/t.pcap")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft stays");
    }

    #[test]
    fn a_pipe_is_written_to() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut bytes = Vec::new();
                File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            }
        });
        create(&path).unwrap().show(&message(0, true, "1", "x")).unwrap();
        assert!(reader.join().unwrap().ends_with(b"x"));
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
        create(Path::new("/dev/null")).unwrap();
    }
}
