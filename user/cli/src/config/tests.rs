use super::*;
use colinux_vmm::{Format, Overlay};
use std::fs;

fn words(words: &[&str]) -> Result<Config, ConfigError> {
    Config::from_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

#[test]
fn words_are_understood() {
    let config =
        words(&["cobd0=/a.img", "cobd3=/b=c.img,ro", "mem=2g", "cpus=4", "root=/dev/vdb", "append=a b=c"]);
    let config = config.unwrap();
    assert_eq!((config.memory, config.cpus), (2 << 30, 4));
    assert_eq!(config.disks[&0], ImageOptions::new("/a.img".into()));
    assert_eq!(config.disks[&3], ImageOptions { read_only: true, ..ImageOptions::new("/b=c.img".into()) });
    assert_eq!(config.append, ["root=/dev/vdb", "a", "b=c"]);
    assert_eq!(words(&["kernel=/k", "mem=64"]).unwrap().memory, 64 << 20);
    assert_eq!(words(&["kernel=/k", "vsock=3"]).unwrap().vsock, Sockets::Address(3));
    assert_eq!(words(&["kernel=/k", "vsock=off"]).unwrap().vsock, Sockets::Off);
    for (word, halt_poll) in [("auto", None), ("off", Some(0)), ("50", Some(50))] {
        assert_eq!(words(&["kernel=/k", &format!("halt-poll={word}")]).unwrap().halt_poll, halt_poll);
    }
}

#[test]
fn disks_have_formats_and_overlays() {
    let disk = |value: &str| words(&[&format!("cobd0={value}")]).map(|config| config.disks[&0].clone());
    assert_eq!(disk("/a.qcow2").unwrap().format, Format::Qcow2);
    assert_eq!(disk("/a.qcow2,format=raw").unwrap().format, Format::Raw);
    assert_eq!(disk("/a.qcow2.img").unwrap().format, Format::Raw);
    assert_eq!(disk("/a,ro,b").unwrap().path, Path::new("/a,ro,b"));
    let both = disk("/a,b.img,format=qcow2,overlay=c.qcow2").unwrap();
    let (format, overlay) = (Format::Qcow2, Overlay::File("c.qcow2".into()));
    assert_eq!(both, ImageOptions { format, overlay, ..ImageOptions::new("/a,b.img".into()) });
    assert_eq!(disk("/a.img,snapshot").unwrap().overlay, Overlay::ThrowAway);
    let part = disk("/a.vhd,partition=5,ro").unwrap();
    assert_eq!((part.format, part.partition, part.read_only), (Format::Vhd, Some(5), true));
    for bad in [
        "/a,partition=0",
        "/a,partition=",
        "/a,format=iso",
        "/a,overlay=",
        "/a,ro,snapshot",
        "/a,snapshot,overlay=b",
        "/a,overlay=b,overlay=c",
    ] {
        assert!(matches!(disk(bad), Err(ConfigError::BadValue { .. })), "{bad}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (word, nearest) in [
        ("men=1", "mem"),
        ("cpu=1", "cpus"),
        ("cobd=x", "cobd0"),
        ("eth=slirp", "eth0"),
        ("kernal=x", "kernel"),
    ] {
        let error = words(&[word]).unwrap_err();
        assert!(error.to_string().contains(&format!("did you mean `{nearest}=`")), "{error}");
    }
}

#[test]
fn devices_have_any_number() {
    let config = words(&["cobd31=/a", "cobd100=/b", "eth15=slirp", "cofs31=/c", "cofs40=/d"]).unwrap();
    assert!(config.disks.keys().eq(&[31, 100]) && config.folders.keys().eq(&[31, 40]));
    assert!(config.nets.keys().eq(&[15]));
    let config = words(&["scsi31=disk,/a", "root=/dev/sdaf2"]).unwrap();
    assert_eq!(config.append, ["root=/dev/vda2"]);
}

#[test]
fn bad_values_are_refused() {
    for word in [
        "mem=",
        "mem=0",
        "mem=-1",
        "mem=1T",
        "mem=99999999G",
        "cpus=0",
        "cpus=65",
        "cpus=x",
        "eth0=slip",
        "kernel=",
        "vsock=2",
        "vsock=4294967295",
        "vsock=x",
        "vsock=on",
        "halt-poll=1001",
        "halt-poll=on",
    ] {
        assert!(matches!(words(&[word]), Err(ConfigError::BadValue { .. })), "{word}");
    }
    assert!(matches!(words(&["mem=64M"]), Err(ConfigError::NoDisk)));
    assert!(matches!(words(&["/does/not/exist"]), Err(ConfigError::Read { .. })));
}

#[test]
fn files_and_images_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("disk.img"), vec![0; 4096]).unwrap();
    fs::write(path("vm.conf"), "# my VM\nmem=1G\n\ncobd0=disk.img\ncobd1=/other.img,ro\n").unwrap();
    let config = words(&[path("vm.conf").to_str().unwrap(), "mem=2G"]).unwrap();
    assert_eq!(config.memory, 2 << 30);
    assert_eq!(config.disks[&0].path, path("disk.img"));
    assert_eq!(config.disks[&1], ImageOptions { read_only: true, ..ImageOptions::new("/other.img".into()) });
    let at = format!("@{}", path("vm.conf").display());
    assert_eq!(words(&["mem=2G", &at]).unwrap().memory, 1 << 30);
    let image = path("disk.img");
    assert_eq!(words(&[image.to_str().unwrap()]).unwrap().disks[&0].path, image);
    // A VMDK may be a text that names files.
    let descriptor = path("disk.vmdk");
    fs::write(&descriptor, "# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n").unwrap();
    let disk = words(&[descriptor.to_str().unwrap()]).unwrap().disks[&0].clone();
    assert_eq!((disk.path, disk.format), (descriptor, Format::Vmdk));
    fs::write(path("b.qcow2"), b"QFI\xfb\0").unwrap();
    let error = words(&[&format!("@{}", path("b.qcow2").display())]).unwrap_err().to_string();
    assert!(error.contains("no configuration"), "{error}");
}

#[test]
fn a_device_of_the_host_stays_as_it_is_unless_the_user_says_otherwise() {
    let device = |words: &[&str]| {
        let mut config = Config::default();
        config.add_first(Path::new("/dev/sdb2"), true)?;
        words.iter().try_for_each(|word| config.add_word(word, Path::new("")))?;
        config.settle_writes().map(|()| (config.disks[&0].overlay.clone(), config.notes.len()))
    };
    assert_eq!(device(&[]).unwrap(), (Overlay::ThrowAway, 1));
    assert_eq!(device(&["cobd1=/dev/sdc", "write=off"]).unwrap(), (Overlay::ThrowAway, 1));
    assert_eq!(device(&["write=on"]).unwrap(), (Overlay::None, 0));
    assert_eq!(device(&["cobd0=/dev/sdc"]).unwrap(), (Overlay::None, 0));
    // For a file it says what is so anyway, or what cannot be.
    assert_eq!(words(&["cobd0=/a", "write=on"]).unwrap().disks[&0].overlay, Overlay::None);
    assert!(words(&["kernel=/k", "write=on"]).is_ok());
    for first in ["cobd0=/a,ro", "cobd0=/a,snapshot", "cobd0=/a,overlay=b"] {
        let error = words(&[first, "write=on"]).unwrap_err().to_string();
        assert!(error.contains("--write") && error.contains("leave that away"), "{error}");
    }
    assert!(matches!(words(&["cobd0=/a", "write=yes"]), Err(ConfigError::BadValue { .. })));
}

#[test]
fn two_folders_at_one_place_or_with_one_tag_are_refused() {
    for second in ["cofs2=/b,mount", "cofs2=/b,tag=cofs1"] {
        let error = words(&["kernel=/k", "cofs1=/a,mount", second]).unwrap_err().to_string();
        assert!(error.contains("`cofs1` and `cofs2` both have"), "{error}");
        // The later one of one number counts.
        words(&["kernel=/k", "cofs1=/a,mount", second, "cofs2=/b"]).unwrap();
    }
}

#[test]
fn a_name_comes_from_the_file() {
    for (path, name) in [
        ("/a/debian.img", "debian"),
        ("my disk.raw", "my-disk"),
        (".hidden", "hidden"),
        (" -x", "x"),
        ("/", "guest"),
    ] {
        assert_eq!(name_of(Path::new(path)), name);
    }
    let config = words(&["kernel=/k", "name=web", "log=out.txt"]).unwrap();
    assert_eq!((config.name.as_deref(), config.log.as_deref()), (Some("web"), Some(Path::new("out.txt"))));
}

/// Files as the documentation of the original has them, and what each says with names.
const CORPUS: [(&str, usize); 8] = [
    ("example", 1),
    ("aliases", 6),
    ("scsi", 6),
    ("bridges", 5),
    ("desktop", 11),
    ("limits", 8),
    ("chain", 3),
    ("today", 0),
];

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/corpus").join(name)
}

/// Without what depends on the way in which it was said.
fn meaning(config: Config) -> Config {
    Config { notes: Vec::new(), aliases: Vec::new(), fallback_name: String::new(), ..config }
}

#[test]
fn files_of_the_original_mean_what_they_meant() {
    for (name, notes) in CORPUS {
        // `today` names a disk file that tells it from a kernel's word.
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(corpus("")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        fs::write(folder.path().join("debian.img"), [0; 512]).unwrap();
        let file = |name: &str| format!("@{}", folder.path().join(name).display());
        let config = words(&[&file(&format!("{name}.conf"))]).unwrap();
        assert_eq!(config.notes.len(), notes, "{name}: {:#?}", config.notes);
        // As an editor of Windows leaves it.
        let text = fs::read_to_string(corpus(&format!("{name}.conf"))).unwrap();
        fs::write(folder.path().join("windows.conf"), text.replace('\n', "\r\n")).unwrap();
        assert_eq!(meaning(words(&[&file("windows.conf")]).unwrap()), meaning(config.clone()), "{name}");
        assert_eq!(config.texts().len(), 2, "{name}");
        for (ending, text) in config.texts() {
            let prefix = format!("{}/", folder.path().display());
            if ending == "toml" {
                assert_eq!(
                    text.replace(&prefix, ""),
                    fs::read_to_string(corpus(&format!("{name}.toml"))).unwrap()
                );
            }
            let again = format!("again.{ending}");
            fs::write(folder.path().join(&again), &text).unwrap();
            assert_eq!(meaning(words(&[&file(&again)]).unwrap()), meaning(config.clone()), "{text}");
        }
        let named = words(&[&file(&format!("{name}.toml"))]).unwrap();
        assert_eq!(meaning(named), meaning(config), "{name}");
    }
}

#[test]
fn what_the_original_knew_and_this_host_cannot_have_names_the_cure() {
    for (word, cure) in [
        (r"cobd0=\Device\Harddisk0\Partition1", "/dev/sdb1"),
        (r"cobd0=C:\coLinux\root_fs", "/dev/sdb1"),
        (r"hda1=\DosDevices\c:\root_fs", "/dev/sdb1"),
        (r"scsi0=disk,\\.\PhysicalDrive1", "/dev/sdb1"),
        (r"cofs0=C:\", "/dev/sdb1"),
        ("scsi0=tape,x", "cdrom"),
        ("hda1=:eth0", "cobd0"),
        ("ttys0=COM1,\"BAUD=9600\"", "/dev/ttyS0"),
        ("eth0=pcap-bridge,Local Area Connection", "eth0=bridge,br0"),
    ] {
        let error = words(&[word]).unwrap_err().to_string();
        assert!(error.contains(cure), "{error}");
    }
}

#[test]
fn files_that_name_one_another_in_a_ring_and_wrong_toml_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: &str, part: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let error = words(&[&format!("@{}", path.display())]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused("ring.conf", "@ring.conf\n", "is it a ring?");
    refused("open.conf", "cobd0=\"a b\n", "a quote has no end");
    refused("a.toml", "memory = 64\nmemery = 1\n", "unknown field `memery`");
    refused("a.toml", "[disk.one]\nfile = \"x\"\n", "`one` is no number");
    refused("a.toml", "[disk.0]\nfile = \"x\"\nread-only = true\nsnapshot = true\n", "leave `ro` away");
    refused("a.toml", "[network.0]\nkind = \"slip\"\n", "unknown variant `slip`");
}

#[test]
fn words_for_the_kernel_may_stand_among_settings() {
    let config = words(&["kernel=/k", "ro", "selinux=1", "init=/bin/sh", "root=/dev/sda1"]).unwrap();
    assert_eq!(config.append, ["ro", "selinux=1", "init=/bin/sh", "root=/dev/sda1"]);
    assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
}

#[test]
fn values_with_commas_spaces_and_quotes_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        words(&[&format!("@{}", path.display())])
    };
    let with_commas = r#"
append = ['dyndbg="file a.c  +p"', "quiet ro"]
root = "LABEL=my disk"
kernel = "/my kernel"

[disk.0]
file = "/my disk, old.img"

[disk.1]
file = "/b,c"
overlay = "/o p.qcow2"

[serial.0]
to = "file:/out,of it #1"

[program.0]
path = "/bin/the sleep"
arguments = ["1", "2"]
"#;
    let config = read("a.toml", with_commas).unwrap();
    assert_eq!(config.disks[&0].path, Path::new("/my disk, old.img"));
    assert_eq!(config.disks[&1].overlay, Overlay::File("/o p.qcow2".into()));
    assert_eq!(config.append, ["root=\"LABEL=my disk\"", "dyndbg=\"file a.c  +p\"", "quiet", "ro"]);
    assert_eq!(config.serials[&0], Endpoint::File("/out,of it #1".into()));
    assert_eq!(config.programs[&0].path, Path::new("/bin/the sleep"));
    for (ending, text) in config.texts() {
        assert_eq!(
            meaning(read(&format!("again.{ending}"), &text).unwrap()),
            meaning(config.clone()),
            "{text}"
        );
    }
    named::to_words(&config).unwrap();
    named::to_toml(&config).unwrap();
    // Words have their own meaning for these.
    for (text, path) in [
        ("[disk.0]\nfile = '/a,ro'", "/a,ro"),
        ("[disk.0]\nfile = '/a,format=raw'", "/a,format=raw"),
        ("[disk.0]\nfile = '/a'\noverlay = '/b,c'", "/a"),
        ("[disk.0]\nfile = '/a,snapshot'\nread-only = true", "/a,snapshot"),
        ("[disk.0]\nfile = '/a \"b\"'", "/a \"b\""),
        ("[disk.0]\nfile = \"/a\\nmem=5\"", "/a\nmem=5"),
        ("kernel = '/k'\n[folder.3]\npath = '/a,ro'", "/a,ro"),
        ("kernel = '/k'\n[folder.3]\npath = '/a, b'\ntag = 'x'", "/a, b"),
        ("kernel = '/k'\n[serial.3]\nto = '/dev/a,b'", "/dev/a,b"),
        ("kernel = '/k'\n[program.3]\npath = '/a,b'", "/a,b"),
        ("kernel = '/k'\n[program.3]\npath = '/a'\narguments = ['-c', 'echo a']", "/a"),
        ("kernel = '/k'\n[program.3]\npath = '/a'\narguments = ['']", "/a"),
    ] {
        let config = read("a.toml", text).unwrap();
        let disk = config.disks.values().map(|disk| &disk.path);
        let folder = config.folders.values().map(|folder| &folder.path);
        let program = config.programs.values().map(|program| &program.path);
        let port = config.serials.values().map(|port| match port {
            Endpoint::Device(path) => path,
            other => panic!("{other:?}"),
        });
        assert_eq!(disk.chain(folder).chain(program).chain(port).collect::<Vec<_>>(), [Path::new(path)]);
        let error = named::to_words(&config).unwrap_err().to_string();
        assert!(error.contains(path.lines().next().unwrap()) && error.contains("--as toml"), "{error}");
        let again = read("again.toml", &named::to_toml(&config).unwrap()).unwrap();
        assert_eq!(meaning(again), meaning(config), "{text}");
    }
    for append in ["append=root=\"/dev/a\" root=b", "append=\"a b\" c=\"d\"", "append=a\"b c"] {
        let config = words(&["kernel=/k", append]).unwrap();
        assert_eq!(config.texts().len(), 2);
        for (ending, text) in config.texts() {
            assert_eq!(meaning(read(&format!("again.{ending}"), &text).unwrap()), meaning(config.clone()));
        }
    }
    // In words a mode is behind a port of the host only.
    assert_eq!(words(&["kernel=/k", "ttys0=file:/a,b"]).unwrap().serials[&0], Endpoint::File("/a,b".into()));
    assert_eq!(words(&["kernel=/k", "x=a b"]).unwrap().append, ["x=\"a b\""]);
}

#[test]
fn what_is_wrong_with_a_device_in_toml_names_it() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("[disk.0]\nfile = ''", "[disk.0]: its name is empty"),
        ("[disk.0]\nfile = '/a'\npartition = 0", "[disk.0]: a partition has a number"),
        ("[disk.0]\nfile = '/a'\nformat = 'iso'", "[disk.0]: the formats are"),
        ("[disk.0]\nfile = '/a'\noverlay = ''", "the overlay needs a name"),
        ("[disk.0]\nfile = '/a'\noverlay = '/b'\nsnapshot = true", "one overlay or snapshot"),
        ("[disk.0]\nfile = 'C:\\a'", "a path of Windows"),
        ("[network.2]\nkind = 'bridge'\nbridge = 'br0,br1/'", "[network.2]: a name of at most 15"),
        ("[network.2]\nkind = 'tuntap'\nmac = '1'", "an address such as"),
        ("[network.2]\nkind = 'slirp'\nforward = ['tcp:1']", "a forward such as"),
        ("[folder.1]\npath = '/a'\ntag = 'a,mount'", "[folder.1]: a tag has"),
        ("[folder.1]\npath = '/a'\nmount = 'a'", "[folder.1]: a mount point is"),
        ("[serial.0]\nto = 'tcp:1'", "[serial.0]: `console`"),
        ("[program.0]\npath = ''", "[program.0]: its name is empty"),
        ("name = ''", "a value is needed"),
    ] {
        let path = folder.path().join("a.toml");
        fs::write(&path, text).unwrap();
        let error = words(&["kernel=/k", &format!("@{}", path.display())]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
