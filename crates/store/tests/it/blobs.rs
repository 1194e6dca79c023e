//! Content.

use bytes::Bytes;

use crate::Backend;

async fn content_comes_back_under_its_digest<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let content = Bytes::from_static(b"abc");
    let digest = ports.blobs.put(content.clone()).await.unwrap();
    assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(ports.blobs.put(content.clone()).await.unwrap(), digest);
    assert_eq!(ports.blobs.get(digest).await.unwrap(), Some(content.clone()));
    let path = ports.blobs.path(digest).await.unwrap().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    let empty = ports.blobs.put(Bytes::new()).await.unwrap();
    let mut listed = ports.blobs.list().await.unwrap();
    listed.sort();
    let mut both = [digest, empty];
    both.sort();
    assert_eq!(listed, both);
}

async fn what_is_deleted_is_gone<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let digest = ports.blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    for _ in 0..2 {
        ports.blobs.delete(digest).await.unwrap();
        assert_eq!(ports.blobs.get(digest).await.unwrap(), None);
        assert_eq!(ports.blobs.path(digest).await.unwrap(), None);
    }
    assert_eq!(ports.blobs.list().await.unwrap(), []);
    ports.blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    assert!(ports.blobs.get(digest).await.unwrap().is_some());
}

async fn many_put_the_same_at_once<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let content = Bytes::from(vec![7; 1 << 20]);
    let puts: Vec<_> = (0..8)
        .map(|_| {
            let (blobs, content) = (ports.blobs.clone(), content.clone());
            tokio::spawn(async move { blobs.put(content).await.unwrap() })
        })
        .collect();
    for put in puts {
        let digest = put.await.unwrap();
        assert_eq!(ports.blobs.get(digest).await.unwrap().as_ref(), Some(&content));
    }
    assert_eq!(ports.blobs.list().await.unwrap().len(), 1);
}

async fn damage_is_noticed<B: Backend>() {
    let dir = tempfile::tempdir().unwrap();
    let ports = B::open(dir.path());
    let digest = ports.blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    let path = ports.blobs.path(digest).await.unwrap().unwrap();
    std::fs::write(path, b"abd").unwrap();
    assert!(ports.blobs.get(digest).await.is_err());
}

crate::each_backend!(
    content_comes_back_under_its_digest,
    what_is_deleted_is_gone,
    many_put_the_same_at_once,
    damage_is_noticed,
);
