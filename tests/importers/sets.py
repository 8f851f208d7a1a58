"""A small set of every kind, in the exact public formats."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from tests.importers.layouts import write_annotation, write_files, write_jpg, write_list, write_wav

SOLO = ("-_-TDDxoaAc_000_00000", "1Ju4S0qeDqw_000_00000", "1Ju4S0qeDqw_001_00037")
DUET = ("HnUOaSfTA6c_000_00000", "HnUOaSfTA6c_000_00007")
VGG = ("zpWuikVorYg_000032", "gEvCUcZ6w88_000030", "JIemsK_0lXc_000364")
ELK, FEMALE, DRUM = "elk_bugling", "female_speech_woman_speaking", "playing_bass_drum"


def music_solo(root: Path) -> Path:
    boxes = ([0.25, 0.125, 0.5, 0.75], [0.5, 0.25, 0.25, 0.25], [0.0, 0.0, 0.125, 0.5])
    names = ("cello", "flute", "flute")
    entries = [{"file": f, "class": c, "bbox": b} for f, c, b in zip(SOLO, names, boxes, strict=True)]
    write_annotation(root, "music_solo.json", entries)
    write_list(root, "music_solo_test.csv", [f"{f},{c}" for f, c in zip(SOLO, names, strict=True)], end="\r\n")
    train = ["E7E1kMExVcg_053_01611,flute", "aaaaaaaaaaa_000_00000,cello", "bbbbbbbbbbb_000_00000,erhu"]
    write_list(root, "music_solo_train.txt", train)
    trained = [line.split(",")[0] for line in train]
    return write_files(root, [*SOLO, *trained], sorted({id[:-10] for id in (*SOLO, *trained)}))


def music_duet(root: Path) -> Path:
    entries = [
        {
            "file": id,
            "class_src1": "cello",
            "bbox_src1": [0.125, 0.25, 0.25, 0.5],
            "class_src2": "acoustic_guitar",
            "bbox_src2": [0.5, 0.5, 0.375, 0.125],
        }
        for id in DUET
    ]
    write_annotation(root, "music_duet.json", entries)
    write_list(root, "music_duet_test.csv", list(DUET))
    write_list(root, "music_duet_train.txt", ["K_U5-GbPgi0_098_02961,cello,acoustic_guitar"])
    return write_files(root, [*DUET, "K_U5-GbPgi0_098_02961"], ["HnUOaSfTA6c", "K_U5-GbPgi0"])


def vggsound(root: Path) -> Path:
    """Lists and annotations of vggsound, vggsound-duet and vggss."""
    entries = [
        {"file": VGG[0], "class": "elk bugling", "bbox": [[0.25, 0.25, 0.5, 0.75], [-0.5, 0.5, 0.25, 1.0]]},
        {"file": VGG[1], "class": "female speech, woman speaking", "bbox": [[0.5, 0.125, 0.625, 0.5]]},
        {"file": VGG[2], "class": "playing bass drum", "bbox": [[0.25, 0.5, 0.25, 0.75]]},
        *({"file": f"more{n:07d}_000000", "class": "elk bugling", "bbox": [[0, 0, 1, 1]] * 10} for n in range(1)),
    ]
    write_annotation(root, "vggss.json", entries)
    write_list(root, "vggss_test.csv", VGG, end="\r\n")
    write_list(root, "vggsound_single_test.csv", [f"{VGG[0]},{ELK}", f"{VGG[1]},{FEMALE}", f"{VGG[2]},{DRUM}"])
    train = [f"trainaaaaaa_000010,{ELK}", f"trainbbbbbb_000010,{FEMALE}", f"traincccccc_000010,{DRUM}"]
    write_list(root, "vggsound_train.txt", train)
    pairs = [
        f"{VGG[0]},{ELK},{VGG[1]},{FEMALE}",
        f"{VGG[1]},{FEMALE},{VGG[2]},{DRUM}",
        f"{VGG[2]},{DRUM},{VGG[0]},{ELK}",
    ]
    write_list(root, "vggsound_duet_test.csv", pairs)
    silent = [f"{VGG[0]},{VGG[2]}", "9PmzQI8ZYpg_000147,9PmzQI8ZYpg_000147"]
    write_list(root, "vggss_test_plus_silent.csv", ["video,audio,label", *(f"{row},non-sounding" for row in silent)])
    ids = [*VGG, "9PmzQI8ZYpg_000147", *(line.split(",")[0] for line in train)]
    return write_files(root, ids, ids)


def instruments(root: Path) -> Path:
    write_list(root, "vgginstruments_test.csv", ["sample0000,accordion", "sample0001,steel guitar"])
    write_list(root, "vgginstruments_multi_test.csv", ["sample0000,accordion,sample0001,steel_guitar"])
    for kind in ("vgginstruments", "vgginstruments_multi"):
        write_list(root, f"{kind}_train.txt", ["--G-wKyj6JQ_000030,accordion", "--IOqc-XgYo_000000,steel_guitar"])
    mask = np.zeros((24, 32), np.float64)
    mask[6:12, 8:24] = 1
    for number, protocol in enumerate((0, 2)):
        path = root / "masks" / f"sample{number:04d}.pkl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(mask if number == 0 else mask.astype(np.uint8)[..., None], protocol=protocol))
    ids = ["sample0000", "sample0001", "--G-wKyj6JQ_000030", "--IOqc-XgYo_000000"]
    return write_files(root, ids, ids)


PERSON = "<object{n}>{boxes}</object{n}>"
BBOX = "<bbox><idx>{n}</idx><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bbox>"


def flickr_xml(*people: list[tuple[int, int, int, int]]) -> str:
    drawn = [
        PERSON.format(n=n, boxes="".join(BBOX.format(*box, n=at) for at, box in enumerate(boxes)))
        for n, boxes in enumerate(people)
    ]
    return f"<annotation>{''.join(drawn)}</annotation>"


def flickr(root: Path) -> Path:
    write_list(root, "flickr_test.csv", ["10000130166,202", "10007936344,0"])
    silent = ["10000130166,10007936344,non-sounding", "10007936344,555,non-sounding"]
    write_list(root, "flickr_test_plus_silent.csv", ["video,audio,label", *silent])
    (root / "Annotations").mkdir(parents=True)
    (root / "Annotations" / "10000130166.xml").write_text(flickr_xml([(64, 0, 128, 256)], [(96, 32, 160, 256)], []))
    (root / "Annotations" / "10007936344.xml").write_text(flickr_xml([(0, 0, 64, 64), (128, 128, 192, 192)]))
    return write_files(root, ["10000130166", "10007936344"], ["10000130166", "10007936344", "555"])


def dsol(root: Path) -> Path:
    solo, duet = "4Oy5VmaacaI_0_1000/frame_013/00411.jpg", "HnUOaSfTA6c_0_1000/frame_175/05257.jpg"
    empty = "4Oy5VmaacaI_0_1000/frame_014/00441.jpg"

    def box(category: int, *norm: float) -> dict[str, object]:
        return {"box": [1, 2, 3, 4], "normbox": list(norm), "category_id": category}

    write_annotation(
        root,
        "dsol/solotest.json",
        {solo: {"bbox": [box(1, 0.25, 0, 0.5, 0.75)], "wdith": 640, "height": 360}, empty: {"bbox": []}},
    )
    both = [box(1, 0, 0.25, 0.25, 0.5), box(3, 0.5, 0.5, 0.25, 0.125), box(1, 0.75, 0, 0.125, 0.125)]
    write_annotation(root, "dsol/duettest.json", {duet: {"bbox": both, "wdith": 608, "height": 360}})
    write_jpg(root / "frames" / solo)
    write_jpg(root / "frames" / empty)
    write_jpg(root / duet)
    write_wav(root / "audio" / "4Oy5VmaacaI_0_1000" / "frame_013" / "00411.wav")
    write_wav(root / "audio" / "4Oy5VmaacaI_0_1000" / "frame_014.wav")
    write_wav(root / "audio" / "HnUOaSfTA6c_0_1000.wav")
    return root
