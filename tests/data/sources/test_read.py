"""Reading: folders, tables, masks, COCO, arrays, Hugging Face folders; and one clear sentence for each mistake."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import bomb, photo, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN, decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.sources.join import parse_tags
from rushlight.data.sources.read import load


def read(folder: Path, **settings) -> Dataset:
    return load(folder, cache=False, **settings)


def images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        save(folder / name, number)
    return folder


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def classes(data: Dataset) -> dict[str, str | None]:
    names = [*data.info.class_names, None]
    return {name: names[value] for name, value in zip(data.names, data["class"].tolist())}


# Folders


def test_a_sub_folder_a_class(tmp_path):
    data = read(images(tmp_path, "dog/1.png", "cat/2.png", "cat/deep/3.png", "_/4.png", "unlabelled/5.png", "6.png"))
    assert classes(data) == {
        "6.png": None, "_/4.png": None, "cat/2.png": "cat", "cat/deep/3.png": "cat", "dog/1.png": "dog",
        "unlabelled/5.png": None,
    }  # fmt: skip
    assert data.names == sorted(data.names)
    assert data["fold"].tolist() == [-1] * 6


def test_classes_that_are_numbers_sort_by_value(tmp_path):
    data = read(images(tmp_path, "10/a.png", "9/b.png", "1/c.png"))
    assert data.info.class_names == ("1", "9", "10")


@pytest.mark.parametrize(("held", "folds"), [("test", [TEST, TRAIN]), ("val", [TRAIN, TEST])])
def test_train_and_test_folders_are_folds(tmp_path, held, folds):
    data = read(images(tmp_path, f"{held}/cat/1.png", "train/dog/2.png"))
    by_name = dict(zip(data.names, data["fold"].tolist()))
    assert by_name == {f"{held}/cat/1.png": TEST, "train/dog/2.png": TRAIN}
    assert data.info.class_names == ("cat", "dog")


def test_beside_train_and_test_val_is_neither(tmp_path):
    data = read(images(tmp_path, "test/c/1.png", "train/c/2.png", "train/d/2.png", "val/c/3.png", "train/_/4.png"))
    assert dict(zip(data.names, data["fold"].tolist()))["val/c/3.png"] == -1
    assert classes(data)["train/_/4.png"] is None


def test_folders_that_only_wrap_are_no_class(tmp_path):
    assert "class" not in read(images(tmp_path / "a", "photos/1.png", "photos/2.png"))
    assert read(images(tmp_path / "b", "x/y/cat/1.png", "x/y/dog/2.png")).info.class_names == ("cat", "dog")
    positive = read(images(tmp_path / "c", "cat/1.png", "unlabelled/2.png"))
    assert positive["class"].tolist() == [0, -1]


def test_one_image_and_a_flat_folder_have_no_labels(tmp_path):
    folder = images(tmp_path, "1.png", "2.png")
    assert read(folder).label_names == []
    assert read(folder / "1.png").names == ["1.png"]


def test_hidden_files_and_other_files_are_not_seen(tmp_path):
    folder = images(tmp_path, "1.png", ".hidden.png", ".git/2.png")
    (folder / "notes.md").write_text("x")
    data = read(folder)
    assert data.names == ["1.png"]
    assert data.info.quarantined == ()


def test_a_saved_data_set_is_opened(tmp_path):
    data = read(images(tmp_path / "in", "a/1.png", "b/2.png"))
    data.save(tmp_path / "saved")
    assert load(tmp_path / "saved").content_hash == data.content_hash
    assert load(data) is data


def test_fashion_by_name():
    data = load("fashion")
    assert len(data) == 14_000
    small = load("fashion", size=14)
    assert (small.height, small.width) == (14, 14)
    assert torch.equal(small["class"], data["class"])
    assert torch.equal(small["fold"], data["fold"])
    assert small.info.class_names == data.info.class_names
    assert small.info.keep == data.info.keep
    with pytest.raises(UserError, match="its own labels"):
        load("fashion", labels="labels.csv")


# Tables


FOUR = "image,class\n1.png,cat\n2.png,dog\n3.png,\n"


def four(tmp_path: Path) -> Path:
    return images(tmp_path, "1.png", "2.png", "3.png", "deep/4.png")


def _parquet(folder: Path) -> Path:
    frame = pd.DataFrame({"image": ["1.png", "2.png", "3.png"], "class": ["cat", "dog", None]})
    frame.to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


@pytest.mark.parametrize(
    "text",
    [
        FOUR,
        FOUR.replace(",", ";"),
        FOUR.replace(",", "\t"),
        "\ufeff" + FOUR,
        FOUR.replace("\n", "\r\n"),
        "Filename , LABEL\n1, cat\n./2.png,dog \n\n",
        '"image","class"\n"1.png","cat"\n"2.png","dog"\n',
        "x,label,file_name\n7,cat,1.png\n8,dog,2.png\n",
        "class,picture\ncat,1.png\ndog,2.png\n",
    ],
)
def test_classes_from_a_table(tmp_path, text):
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert classes(data) == {"1.png": "cat", "2.png": "dog", "3.png": None, "deep/4.png": None}


def test_classes_from_parquet_and_utf16(tmp_path):
    expected = {"1.png": "cat", "2.png": "dog", "3.png": None, "deep/4.png": None}
    assert classes(read(four(tmp_path), labels=_parquet(tmp_path))) == expected
    (tmp_path / "wide.csv").write_bytes(FOUR.encode("utf-16"))
    assert classes(read(tmp_path, labels=tmp_path / "wide.csv")) == expected


def test_a_table_beside_the_images_is_found(tmp_path):
    table(four(tmp_path), FOUR)
    table(tmp_path, "nothing,of,interest\n1,2,3\n", "notes.csv")
    assert classes(read(tmp_path))["1.png"] == "cat"


def test_the_same_labels_in_four_forms_are_the_same(tmp_path):
    cat, dog = photo(1), photo(2)
    for path, image in (("folder/cat/1.png", cat), ("folder/dog/2.png", dog), ("flat/1.png", cat), ("flat/2.png", dog)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / path)
    csv = table(tmp_path, "image,class\n1.png,cat\n2.png,dog\n")
    pd.read_csv(csv).to_parquet(tmp_path / "labels.parquet")
    forms = [
        read(tmp_path / "folder", size=40),
        read(tmp_path / "flat", labels=csv, size=40),
        read(tmp_path / "flat", labels=tmp_path / "labels.parquet", size=40),
        load([(cat, "cat"), (dog, "dog")], size=40),
    ]
    for data in forms[1:]:
        assert torch.equal(data["image"], forms[0]["image"])
        assert torch.equal(data["class"], forms[0]["class"])
        assert data.info.class_names == ("cat", "dog")


def test_tags_with_bars(tmp_path):
    text = "image,tags\n1.png,cat|dog\n2.png, dog \n3.png,\ndeep/4.png,|\n"
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert data.info.tag_names == ("cat", "dog")
    assert data["tags"].tolist() == [[1, 1], [0, 1], [-1, -1], [0, 0]]


@pytest.mark.parametrize(("text", "column"), [("1.png,a|b", "tags"), ("1.png,a", "class")])
def test_a_column_labels_holds_tags_if_it_has_bars(tmp_path, text, column):
    data = read(four(tmp_path), labels=table(tmp_path, f"image,labels\n{text}\n2.png,b\n"))
    assert data.label_names == [column]


def test_one_column_a_tag(tmp_path):
    text = "image,cat,dog,owner,empty\n1.png,1,0,ann,\n2.png,,1.0,ben,\n3.png,True,FALSE,,\n"
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert data.info.tag_names == ("cat", "dog", "empty")
    assert data["tags"].tolist() == [[1, 0, -1], [-1, 1, -1], [1, 0, -1], [-1, -1, -1]]
    assert data.info.settings["ignored_columns"] == ["owner"]


def test_fold_domain_and_caption(tmp_path):
    text = (
        'image,class,split,domain,caption\n1.png,a,train,paris,"a cat, ""asleep"""\n2.png,b,TEST,rome,été\n3.png,a,,,\n'
    )
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert data["fold"].tolist() == [TRAIN, TEST, -1, -1]
    assert data["domain"].tolist() == [0, 1, -1, -1]
    assert data.info.domain_names == ("paris", "rome")
    assert decode_text(data["caption"]) == ['a cat, "asleep"', "été", "", ""]
    assert data.known("caption").tolist() == [True, True, False, False]


def test_study_and_magnification_are_numbered_in_their_natural_order(tmp_path):
    text = "image,domain,Study,magnification\n1.png,s1,brca,20x\n2.png,s1,brca,5x\n3.png,s2,luad,\n"
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert data["study"].tolist() == [0, 0, 1, -1]
    assert data["magnification"].tolist() == [1, 0, -1, -1]
    assert data.label_names == ["domain"]
    assert "ignored_columns" not in data.info.settings
    with pytest.raises(UserError, match="'study' is 'a' in row 2 and 'b' in row 3"):
        read(four(tmp_path), labels=table(tmp_path, "image,class,study\n1.png,x,a\n1.png,x,b\n"))


def test_equal_rows_are_counted_and_blanks_filled(tmp_path):
    text = "image,class,domain\n1.png,cat,\n1.png,cat,rome\n1.png,cat,rome\n2.png,dog,\n"
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert data.info.settings["duplicated_rows"] == 2
    assert data["domain"].tolist()[0] == 0


def test_several_captions_of_one_image_are_no_contradiction(tmp_path):
    data = read(four(tmp_path), labels=table(tmp_path, "image,caption\n1.png,one\n1.png,two\n"))
    assert decode_text(data["caption"])[0] == "one"


@pytest.mark.parametrize("heads", ["licence,creator", "License,Photographer", "license,author"])
def test_licence_and_creator(tmp_path, heads):
    text = f"image,{heads}\n1.png,CC BY 2.0,Zoë\n2.png,,ann\n"
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert decode_text(data["licence"]) == ["CC BY 2.0", "", "", ""]
    assert decode_text(data["creator"]) == ["Zoë", "ann", "", ""]
    assert data.known("creator").tolist() == [True, True, False, False]
    assert data.label_names == [], "they are no labels: nothing learns to tell them, and no test hides them"


def test_two_licences_of_one_image_are_a_contradiction(tmp_path):
    text = "image,licence,creator\n1.png,CC BY,ann\n1.png,CC BY-NC,ben\n"
    with pytest.raises(UserError, match="column 'licence' is 'CC BY' in row 2 and 'CC BY-NC' in row 3"):
        read(four(tmp_path), labels=table(tmp_path, text))


def test_formulas_stay_text(tmp_path):
    text = 'image,class\n1.png,=cmd|\' /C calc\'!A0\n2.png,"=HYPERLINK(""http://x"")"\n3.png,@SUM(1)\n'
    data = read(four(tmp_path), labels=table(tmp_path, text))
    assert set(data.info.class_names) == {"=cmd|' /C calc'!A0", '=HYPERLINK("http://x")', "@SUM(1)"}


def test_quarantined_images_may_be_named(tmp_path):
    four(tmp_path)
    (tmp_path / "3.png").write_bytes(b"broken")
    (tmp_path / "5.heic").write_bytes(b"")
    data = read(tmp_path, labels=table(tmp_path, FOUR + "5.heic,cat\n"))
    assert classes(data) == {"1.png": "cat", "2.png": "dog", "deep/4.png": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,class\n1.png,cat\n9.png,dog\n8.png,dog\n", ["2 files", "'9.png'", "row 3", "labels.csv", "Add the"]),
        ("image,class\n1.png,cat\n../1.png,dog\n", ["'../1.png'", "row 3"]),
        ("image,class\n1.png,cat\n,dog\n", ["blank", "row 3"]),
        ("image,class\n1.png,cat\n2.png,dog\n1.png,dog\n", ["'1.png'", "'cat' in row 2", "'dog' in row 4", "tags"]),
        ("image,cat\n1.png,1\n1.png,0\n", ["'1.png'", "'cat'", "row 2", "row 3"]),
        ("image:class\n1.png:cat\n", ["one column", "commas, semicolons or tabs"]),
        ("image,class\n1.png,cat,x\n", ["row 2", "3 cells", "2:"]),
        ("image,class\n1.png\n", ["row 2", "1 cells"]),
        ("image,class,class\n1.png,a,b\n", ["2 columns named 'class'"]),
        ("image,class\n", ["no rows"]),
        ("", ["empty"]),
        ("a,b\nx,y\n", ["no column that names the images", "'a', 'b'", "'image'"]),
        ("image,kind\n1.png,cat\n", ["no label column", "'kind'", "'class'"]),
        ("image,cat,dog\n1.png,1,0\n2.png,0,maybe\n", ["row 3", "'dog'", "'maybe'", "blank"]),
        ("image,cat\n1.png,2\n2.png,1\n", ["row 2", "'cat'", "'2'"]),
        ("image,class,fold\n1.png,cat,tset\n", ["row 2", "'tset'", "train, test or val"]),
        ('image,class\n1.png,"cat\n2.png,dog\n', ["quote"]),
        ("image,tags\n1.png,\n2.png,\n", ["no tag"]),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, words):
    path = table(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read(four(tmp_path), labels=path)
    assert [word for word in [*words, "labels.csv"] if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("labels.npy", "pickle", "pickle"),
        ("labels.pt", "pickle", "pickle"),
        ("labels.csv", "pickle", "pickle"),
        ("labels.pkl", "text", "pickle"),
        ("labels.parquet", "text", "not a Parquet"),
        ("labels.xlsx", "zip", "Excel"),
        ("labels.pt", "zip", "pickle"),
        ("labels.npy", "array", "NumPy"),
        ("labels.csv", "binary", "not text"),
        ("labels.csv", "latin", "UTF-8"),
        ("labels.json", "text", "not JSON"),
        ("labels.json", "deep", "not JSON"),
        ("labels.json", "list", "no COCO"),
    ],
)
def test_label_files_of_another_kind_are_refused_unread(tmp_path, name, content, word):
    four(tmp_path / "in")
    np.save(tmp_path / "array.npy", np.arange(4))
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    data = {
        "pickle": bomb(tmp_path / "executed"), "text": b"a,b\n", "zip": (tmp_path / "zip").read_bytes(),
        "array": (tmp_path / "array.npy").read_bytes(), "binary": b"a,b\n\0\1\2\n", "deep": b"[" * 200_000,
        "latin": "image,class\n1.png,caf\xe9\n".encode("latin-1"), "list": b"[]",
    }[content]  # fmt: skip
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=word):
        read(tmp_path / "in", labels=tmp_path / name)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path.parent / "evil.txt").exists()


@given(
    st.lists(st.text(st.characters(exclude_characters="|", exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1)
)
def test_tags_survive_joining(tags):
    wanted = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    assert parse_tags("|".join(tags)) == (wanted or (None if len(tags) == 1 else []))


names = st.lists(st.sampled_from(["cat", "dog", "a b", "é;", "x,y", '"q"', "=1+1"]), max_size=4)


@given(st.lists(st.none() | names, min_size=3, max_size=3).filter(any), st.sampled_from(",;\t"))
def test_a_written_table_is_read_back(tmp_path_factory, rows, delimiter):
    import csv

    folder = tmp_path_factory.mktemp("tags")
    images(folder, "1.png", "2.png", "3.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["image", "tags"])
        writer.writerows([f"{i}.png", "" if tags is None else "|".join(tags) or "|"] for i, tags in enumerate(rows, 1))
    data = read(folder)
    for tags, values in zip(rows, data["tags"].tolist()):
        known = {name for name, value in zip(data.info.tag_names, values) if value == 1}
        assert known == set(tags or ())
        assert (-1 in values) == (tags is None)


# Masks


def mask(path: Path, values: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768, dtype=np.uint8).tobytes())
    image.save(path)


STRIPES = np.repeat(np.arange(4), 10)[:, None] + np.zeros((1, 56), int)


@pytest.mark.parametrize("layout", ["beside", "parallel", "argument", "nested"])
@pytest.mark.parametrize("palette", [False, True])
def test_masks(tmp_path, layout, palette):
    where = {
        "beside": ("in/1.jpg", "in/1_mask.png", "in/2.jpg"),
        "parallel": ("in/images/1.jpg", "in/masks/1.png", "in/images/2.jpg"),
        "argument": ("in/1.jpg", "elsewhere/1.png", "in/2.jpg"),
        "nested": ("in/images/train/1.jpg", "in/masks/train/1.png", "in/images/test/2.jpg"),
    }[layout]
    save(tmp_path / where[0], 1)
    save(tmp_path / where[2], 2)
    values = STRIPES.copy()
    values[:, :5] = 255
    mask(tmp_path / where[1], values, palette)
    settings = {"masks": tmp_path / "elsewhere"} if layout == "argument" else {}
    data = read(tmp_path / "in", size=(20, 28), **settings)
    labelled = data.names.index(where[0].removeprefix("in/"))
    assert len(data) == 2
    assert torch.equal(data["mask"][labelled], torch.from_numpy(values[1::2, 1::2].astype(np.uint8)))
    assert (data["mask"][1 - labelled] == 255).all()
    assert data.info.mask_names == ("0", "1", "2", "3")
    assert ("fold" in data and TEST in data["fold"].tolist()) == (layout == "nested")


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_masks_move_with_their_images(tmp_path, fit):
    values = np.zeros((60, 100), int)
    values[20:40, 40:70] = 7
    mask(tmp_path / "1_mask.png", values)
    Image.fromarray(np.repeat((values[..., None] > 0) * 255, 3, 2).astype(np.uint8)).save(tmp_path / "1.png")
    data = read(tmp_path, size=32, fit=fit)
    seen, told = data["image"][0, 0] > 127, data["mask"][0] == 7
    assert (seen ^ told).float().mean() < 0.04
    assert bool((data["mask"][0] == 255).any()) == (fit == "pad")


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_masks_of_0_and_255_are_foreground(tmp_path, fit):
    save(tmp_path / "1.png", 1)
    mask(tmp_path / "1_mask.png", (STRIPES > 1) * 255)
    data = read(tmp_path, size=40, fit=fit)
    assert data["mask"].unique().tolist() == ([0, 1] if fit == "squash" else [0, 1, 255])
    assert data.info.mask_names == ("0", "1")
    assert "255" in data.info.settings["masks"]


def test_a_mask_of_another_size_is_named(tmp_path):
    save(tmp_path / "1.png", 1)
    mask(tmp_path / "1_mask.png", STRIPES[:20])
    with pytest.raises(UserError, match=r"1_mask\.png' is 56×20 .*1\.png' is 56×40"):
        read(tmp_path)


def test_a_mask_that_cannot_be_used_is_named_and_unknown(tmp_path):
    images(tmp_path, "1.png", "2.png", "1_mask.png")
    (tmp_path / "2_mask.png").write_bytes(b"broken")
    data = read(tmp_path)
    assert data.names == ["1.png", "2.png"]
    assert (data["mask"] == 255).all()
    reasons = {entry.name: entry.reason for entry in data.info.quarantined}
    assert "colours" in reasons["1_mask.png"]
    assert "not an image" in reasons["2_mask.png"]


def test_masks_that_match_no_image_are_an_error(tmp_path):
    images(tmp_path / "in", "1.png")
    mask(tmp_path / "masks" / "9.png", STRIPES)
    with pytest.raises(UserError, match="no mask in"):
        read(tmp_path / "in", masks=tmp_path / "masks")


# COCO


def coco(tmp_path: Path, annotations: list[dict], **changes) -> Path:
    images(tmp_path / "in", "1.png", "2.png", "3.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 56, "height": 40} for i in (1, 2)],
        "categories": [
            {"id": 5, "name": "person", "keypoints": ["nose", "tail"]},
            {"id": 9, "name": "dog"},
        ],
        "annotations": annotations,
    }
    (tmp_path / "coco.json").write_text(json.dumps(content | changes))
    return tmp_path / "coco.json"


RUNS = {"size": [40, 56], "counts": [40 * 10 + 10, 5, 35, 5, 40 * 56 - 455]}


def one(**changes) -> dict:
    return {"id": 1, "image_id": 1, "category_id": 9, "bbox": [10, 10, 20, 16]} | changes


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_boxes_return_to_the_original(tmp_path, fit):
    path = coco(tmp_path, [one(), one(category_id=5, bbox=[14, 4, 8, 30])])
    data = read(tmp_path / "in", labels=path, size=(24, 24), fit=fit)
    assert data.info.box_names == ("person", "dog")
    assert data.known("boxes").tolist() == [True, True, False]
    assert data["boxes"][1, :, 5].tolist() == [0, 0]
    assert data["boxes"][2, :, 5].tolist() == [-1, -1]
    for slot, expected in enumerate(([10, 10, 30, 26], [14, 4, 22, 34])):
        corners = data["boxes"][0, slot, :4].reshape(2, 2)
        back = torch.cat([corners, torch.ones(2, 1)], 1) @ data["to_original"][0].T
        assert back.flatten().tolist() == pytest.approx(expected, abs=1e-3)
    assert data["boxes"][0, :, 4].tolist() == [1, 0]


def test_what_is_cropped_away_is_not_there(tmp_path):
    path = coco(tmp_path, [one(bbox=[0, 0, 4, 40]), one(bbox=[0, 0, 28, 40])])
    boxes = read(tmp_path / "in", labels=path, size=40, fit="crop")["boxes"][0]
    assert boxes[:, 5].tolist() == [0, 1]
    assert boxes[1, :4].tolist() == pytest.approx([0, 0, 20, 40])


def test_keypoints(tmp_path):
    path = coco(tmp_path, [one(category_id=5, keypoints=[28, 20, 2, 0, 0, 0]), one()])
    data = read(tmp_path / "in", labels=path, size=(20, 28))
    assert data.info.keypoint_names == ("nose", "tail")
    assert data["keypoints"][0, 0].tolist() == [[14, 10, 2], [0, 0, 0]]
    assert (data["keypoints"][0, 1] == 0).all()
    assert data.known("keypoints").tolist() == [True, True, False]


@pytest.mark.parametrize("form", ["plain", "packed", "polygon"])
def test_regions_become_masks(tmp_path, form):
    from faster_coco_eval.core import mask as rle

    inside = np.zeros((40, 56), np.uint8)
    inside[10:26, 10:30] = 1
    packed_runs = rle.encode(np.asfortranarray(inside))
    lengths = np.diff(np.flatnonzero(np.diff(np.r_[[0], inside.T.ravel(), [2]]) != 0), prepend=0)
    region = {
        "packed": {"size": [40, 56], "counts": packed_runs["counts"].decode()},
        "plain": {"size": [40, 56], "counts": lengths.tolist()},
        "polygon": [[10, 10, 30, 10, 30, 26, 10, 26]],
    }[form]
    path = coco(tmp_path, [one(segmentation=region)])
    data = read(tmp_path / "in", labels=path, size=(40, 56))
    assert torch.equal(data["mask"][0], torch.from_numpy(inside * 2))
    assert torch.equal(data["instance"][0], torch.from_numpy(inside).short())
    assert (data["mask"][1] == 0).all()
    assert (data["mask"][2] == 255).all()
    assert (data["instance"][2] == -1).all()
    assert data.info.mask_names == ("background", "person", "dog")


def test_small_objects_lie_on_large_ones_and_crowds_are_unknown(tmp_path):
    large, small = [[0, 0, 56, 0, 56, 20, 0, 20]], [[10, 5, 20, 5, 20, 15, 10, 15]]
    crowd = {"size": [40, 56], "counts": [40 * 50, 40 * 6]}
    path = coco(
        tmp_path,
        [
            one(segmentation=small, category_id=5),
            one(segmentation=large),
            one(segmentation=crowd, iscrowd=1),
        ],
    )
    data = read(tmp_path / "in", labels=path, size=(40, 56))
    assert data["mask"][0, 10, 15] == 1
    assert data["mask"][0, 2, 15] == 2
    assert data["mask"][0, 30, 53] == 255
    assert data["instance"][0, 30, 53] == -1
    assert data["boxes"].shape[1] == 2


@pytest.mark.parametrize(
    "region",
    [
        {"size": [40, 56], "counts": [1, 2]},
        {"size": [9999, 9999], "counts": [9999 * 9999]},
        {"size": [40, 56], "counts": [-5, 40 * 56 + 5]},
        {"size": [40, 56], "counts": "ooooooooooooooooooo"},
        {"size": [40, 56], "counts": None},
        [[1, 2]],
        [["a", "b", "c", "d", "e", "f"]],
        [[float("nan")] * 6],
        "text",
    ],
)
def test_regions_that_lie_are_named_and_unknown(tmp_path, region):
    path = coco(tmp_path, [one(segmentation=region), one(image_id=2, segmentation=RUNS)])
    data = read(tmp_path / "in", labels=path, size=(40, 56))
    assert (data["mask"][0] == 255).all()
    assert (data["mask"][1] == 2).sum() == 10
    assert [entry.name for entry in data.info.quarantined] == ["1.png"]


@pytest.mark.parametrize(
    ("annotations", "changes", "words"),
    [
        ([one(image_id=77)], {}, ["annotation 0", "77", "none of its images"]),
        ([one(category_id=77)], {}, ["77", "none of its categories"]),
        ([one(bbox=[1, 2])], {}, ["bbox", "[1, 2]"]),
        ([one(bbox="abcd")], {}, ["bbox"]),
        ([one(keypoints=[1, 2])], {}, ["keypoints"]),
        ([], {"images": [{"id": 1, "file_name": "nine.png"}]}, ["1 files", "'nine.png'"]),
        ([], {"images": [{"id": 1, "file_name": "1.png", "width": 9, "height": 9}]}, ["9×9", "56×40", "1.png"]),
        ([], {"images": [{"file_name": "1.png"}]}, ["without 'id'"]),
        ([], {"categories": 3}, ["'categories'"]),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_said(tmp_path, annotations, changes, words):
    path = coco(tmp_path, annotations, **changes)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "in", labels=path)
    assert [word for word in [*words, "coco.json"] if word not in str(caught.value)] == []


JOINTS = {"category_id": 5}


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([28, 20, 2], ["1 keypoints", "names 2"]),
        ([28, 20, 2, 0, 0, 0, 1, 1, 2], ["3 keypoints", "names 2"]),
        ([28, 20, 7, 0, 0, 0], ["visibility 7", "0 (not labelled)"]),
        ([300, 300, 2, 0, 0, 0], ["(300, 300)", "56×40"]),
        ([float("nan"), 3, 2, 0, 0, 0], ["(nan, 3)"]),
    ],
)
def test_keypoints_that_lie_are_refused(tmp_path, points, words):
    path = coco(tmp_path, [one(**JOINTS, keypoints=[1, 1, 2, 0, 0, 0]), one(**JOINTS, id=17, keypoints=points)])
    with pytest.raises(UserError) as caught:
        read(tmp_path / "in", labels=path)
    assert [word for word in [*words, "coco.json", "id 17"] if word not in str(caught.value)] == []


@pytest.mark.parametrize("box", [[140, 10, 20, 16], [10, 10, -3, 8], [10, 10, 5, 0], [-9, 3, 9, 4]])
def test_boxes_that_show_nothing_are_named_and_no_image_counts_as_empty(tmp_path, box):
    path = coco(tmp_path, [one(id=7, bbox=box), one(image_id=2), one(id=8, image_id=2, bbox=box)])
    data = read(tmp_path / "in", labels=path, size=(40, 56))
    assert data.known("boxes").tolist() == [False, True, False]
    assert int((data["boxes"][:, :, 5] == 1).sum()) == 1
    said = {(entry.name, entry.reason) for entry in data.info.quarantined}
    assert {name for name, _ in said} == {"1.png", "2.png"}
    assert all("annotation 7" in why and "boxes are unknown" in why for name, why in said if name == "1.png")
    assert all("annotation 8" in why and "unknown" not in why for name, why in said if name == "2.png")


# Paths


def test_a_wrong_path_suggests_the_nearest(tmp_path):
    images(tmp_path / "photos", "1.png")
    table(tmp_path, "image,class\n1.png,a\n")
    with pytest.raises(UserError, match="Did you mean 'photos'"):
        read(tmp_path / "photo")
    with pytest.raises(UserError, match=r"Did you mean 'labels\.csv'"):
        read(tmp_path / "photos", labels=tmp_path / "label.csv")
    with pytest.raises(UserError, match="neither does the folder"):
        read(tmp_path / "no" / "where")
    with pytest.raises(UserError, match="Did you mean 'fashion'"):
        load("fashon")


def test_paths_that_hold_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "model.pt").write_bytes(bomb(tmp_path / "executed"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../evil.png", "x")
    for name, words in {
        "empty": "holds no images",
        "notes.txt": "neither a folder nor an image",
        "model.pt": "pickle",
        "a.zip": "extract it",
    }.items():
        with pytest.raises(UserError, match=words):
            read(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path.parent / "evil.png").exists()


def test_several_label_files_need_a_choice(tmp_path):
    table(four(tmp_path), FOUR, "a.csv")
    table(tmp_path, FOUR, "b.csv")
    with pytest.raises(UserError, match=r"'a\.csv', 'b\.csv'.*--labels"):
        read(tmp_path)


def test_a_label_file_is_no_source(tmp_path):
    with pytest.raises(UserError, match="--labels"):
        read(table(tmp_path, FOUR))
