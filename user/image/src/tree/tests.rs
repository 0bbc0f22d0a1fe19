use super::*;
use tar::{Builder, Header};

fn tree() -> Tree {
    Tree::new(&std::env::temp_dir()).unwrap()
}

/// That of an empty file.
fn header() -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// An archive of `entries`: a name that ends with `/` is a folder, `a->b` a symbolic link, `a=b` a second name, anything else a file that holds its name.
fn archive(entries: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = header();
        if let Some((name, target)) = entry.split_once("->") {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, name, target).unwrap();
        } else if let Some((name, target)) = entry.split_once('=') {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, name, target).unwrap();
        } else if entry.ends_with('/') {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, entry, &[][..]).unwrap();
        } else {
            header.set_size(entry.len() as u64);
            builder.append_data(&mut header, entry, entry.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.nodes.keys().skip(1).map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn a_layer_hides_what_is_below_it_and_nothing_of_its_own() {
    let mut tree = tree();
    let add = |tree: &mut Tree, entries: &[&str]| tree.add(&*archive(entries), As::Layer).unwrap();
    add(&mut tree, &["a/", "a/one", "a/two", "b/", "b/deep/", "b/deep/file", "c/", "c/old", "d"]);
    add(&mut tree, &["a/.wh.one", "b/.wh.deep", "c/new", "c/.wh..wh..opq", "d/", "d/within"]);
    assert_eq!(names(&tree), ["a", "a/two", "b", "c", "c/new", "d", "d/within"]);
    // A folder that becomes a file takes all with it.
    add(&mut tree, &["a"]);
    assert_eq!(names(&tree), ["a", "b", "c", "c/new", "d", "d/within"]);
}

#[test]
fn names_lead_through_links_and_never_out() {
    let mut tree = tree();
    let entries = [
        "usr/",
        "usr/lib/",
        "lib->usr/lib",
        "lib/file",
        "abs->/usr/../../usr/lib",
        "abs/other",
        "x=lib/file",
    ];
    tree.add(&*archive(&entries), As::Plain).unwrap();
    assert_eq!(names(&tree), ["abs", "lib", "usr", "usr/lib", "usr/lib/file", "usr/lib/other", "x"]);
    assert_eq!(tree.nodes[Path::new("x")].kind, tree.nodes[Path::new("usr/lib/file")].kind);
    assert_eq!(fs::read_to_string(tree.file("/abs/file").unwrap()).unwrap(), "lib/file");
    for bad in [
        &["a->b", "b->a", "a/file"][..],
        &["y=missing"],
        &["usr/lib/file/within"],
        &["usr/lib/file/far/within"],
    ] {
        assert!(tree.add(&*archive(bad), As::Plain).is_err(), "{bad:?}");
    }
    assert!(inner(Path::new("a/../../b")).is_err());
    let long = "n".repeat(256);
    for bad in [&[&*long][..], &[&format!("to->{long}"), "to/file"]] {
        assert!(tree.add(&*archive(bad), As::Plain).is_err(), "{bad:?}");
    }
    tree.add(&*archive(&[&long[1..]]), As::Plain).unwrap();
}

#[test]
fn a_link_takes_the_place_of_a_folder_with_all_in_it() {
    let mut tree = tree();
    tree.add(&*archive(&["vmlinuz/", "vmlinuz/file"]), As::Plain).unwrap();
    tree.put("vmlinuz".into(), Node::new(Kind::Link("boot/vmlinuz".into()), 0o777));
    assert_eq!(names(&tree), ["vmlinuz"]);
}

#[test]
fn a_sparse_file_of_a_kind_that_is_not_read_is_an_error() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut header = header();
    builder.append_data(&mut header, "file", &[][..]).unwrap();
    let error = tree().add(&*builder.into_inner().unwrap(), As::Plain).unwrap_err();
    let error = error.of_archive(Path::new("x.tar")).to_string();
    assert!(error.contains("sparse"), "{error}");
}

#[test]
fn a_damaged_archive_is_an_error() {
    let bytes = archive(&["file"]);
    assert!(matches!(tree().add(&bytes[..514], As::Plain), Err(Fault::Source(_))));
}

#[test]
fn an_archive_is_not_to_blame_for_the_place_of_its_files() {
    let mut tree = tree();
    fs::remove_dir(tree.contents.path()).unwrap();
    let (place, fault) = (tree.contents(1), tree.add(&*archive(&["file"]), As::Plain).unwrap_err());
    assert!(matches!(fault, Fault::Target { path, .. } if path == place));
}
