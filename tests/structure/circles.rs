//! Files that import each other, directly or by others: none of them can be read, moved or tested without all.
//!
//! What a file takes from a module that only passes it on (`pub use`) is taken from where it is made. Passing on is no import, and so the
//! front of a room may list what is in it. Tests may import what they like.

use crate::reading::{By, File, Segments};
use std::collections::{BTreeMap, BTreeSet};

/// Circles that are not `known`, and known ones that are no more.
pub fn faults(files: &[File], known: &[&[&str]]) -> Vec<String> {
    let found = circles(files);
    let is_known = |circle: &Vec<&str>| known.contains(&circle.as_slice());
    let is_found = |circle: &[&str]| found.iter().any(|found| found == circle);
    let new = found.iter().filter(|circle| !is_known(circle));
    let gone = known.iter().filter(|circle| !is_found(circle));
    let new = new.map(|circle| format!("a circle of imports: {circle:?}"));
    new.chain(gone.map(|circle| format!("no circle any more, or another one: {circle:?}"))).collect()
}

fn circles(files: &[File]) -> Vec<Vec<&str>> {
    let map = Map::of(files);
    let edges: Vec<BTreeSet<usize>> = (0..files.len()).map(|file| map.imports(file)).collect();
    let reached: Vec<BTreeSet<usize>> = (0..files.len()).map(|file| reach(file, &edges)).collect();
    let mut circles = BTreeSet::new();
    for file in 0..files.len() {
        let circle = reached[file].iter().filter(|other| reached[**other].contains(&file));
        let circle: BTreeSet<&str> = circle.map(|file| files[*file].name.as_str()).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().map(|circle| circle.into_iter().collect()).collect()
}

fn reach(from: usize, edges: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(edges[file].iter().filter(|next| reached.insert(**next)));
    }
    reached
}

/// Which file is which module, and what names modules have from others.
struct Map<'a> {
    files: &'a [File],
    modules: BTreeMap<&'a [String], usize>,
    names: BTreeMap<(&'a [String], &'a str), &'a Segments>,
}

impl<'a> Map<'a> {
    fn of(files: &'a [File]) -> Map<'a> {
        let modules = files.iter().enumerate().filter(|(_, file)| file.name != "main.rs");
        let modules = modules.map(|(at, file)| (&file.module[..], at));
        let mut names = BTreeMap::new();
        for path in files.iter().flat_map(|file| &file.paths).filter(|path| path.is_ours) {
            if let By::Use { module, name, .. } = &path.by {
                names.insert((&module[..], name.as_str()), &path.segments);
            }
        }
        Map { files, modules: modules.collect(), names }
    }

    fn imports(&self, file: usize) -> BTreeSet<usize> {
        let here = &self.files[file];
        let mut imports = BTreeSet::new();
        if here.is_test {
            return imports;
        }
        for path in here.paths.iter().filter(|path| path.is_ours && !here.in_tests(path.line)) {
            if !matches!(path.by, By::Use { is_public: true, .. }) {
                imports.extend(self.home(&path.segments, 0));
            }
        }
        imports.remove(&file);
        imports
    }

    /// The file that makes what a path names.
    fn home(&self, path: &[String], steps: usize) -> Option<usize> {
        let length = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        if let (Some(name), true) = (rest.first(), steps < 8)
            && name != "*"
            && let Some(target) = self.names.get(&(module, name.as_str()))
            && target[..] != path[..=length]
        {
            return self.home(&[target, &rest[1..]].concat(), steps + 1);
        }
        self.modules.get(module).copied()
    }
}
