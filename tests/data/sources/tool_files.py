"""The same heads as each annotation tool would write them, after its documentation."""

import json

HEADS = {"a.jpg": [(120.5, 80.0), (131.0, 92.25)], "b.jpg": [], "c.jpg": [(1.0, 2.0)] * 2}
WIDTH, HEIGHT = 640, 448


def coco():
    names = list(HEADS)
    return {
        "instances.json": {
            "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
            "annotations": [
                {"image_id": names.index(name), "category_id": 1, "keypoints": [x, y, 2]}
                for name, heads in HEADS.items()
                for x, y in heads
            ],
            "categories": [{"id": 1, "name": "head", "keypoints": ["head"]}],
        }
    }


def labelme():
    return {
        name.replace(".jpg", ".json"): {
            "version": "5.4.1",
            "flags": {},
            "imagePath": name,
            "imageData": None,
            "imageWidth": WIDTH,
            "imageHeight": HEIGHT,
            "shapes": [
                {"label": "head", "points": [[x, y]], "shape_type": "point", "flags": {}}
                for x, y in heads
            ],
        }
        for name, heads in HEADS.items()
    }


def labelstudio():
    def result(x, y):
        return {
            "type": "keypointlabels",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "value": {
                "x": 100 * x / WIDTH,
                "y": 100 * y / HEIGHT,
                "width": 0.3,
                "keypointlabels": ["head"],
            },
        }

    return {
        "project-1.json": [
            {
                "id": number,
                "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
                "annotations": [{"result": [result(x, y) for x, y in heads]}],
            }
            for number, (name, heads) in enumerate(HEADS.items())
        ]
    }


def via_files():
    return {
        f"{name}123": {
            "filename": name,
            "size": 123,
            "regions": [
                {"shape_attributes": {"name": "point", "cx": x, "cy": y}, "region_attributes": {}}
                for x, y in heads
            ],
            "file_attributes": {},
        }
        for name, heads in HEADS.items()
    }


def via_project():
    return {"via_project.json": {"_via_settings": {}, "_via_img_metadata": via_files()}}


def via_json():
    return {"via_region_data.json": via_files()}


def via_csv():
    lines = [
        "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
        "region_attributes"
    ]
    for name, heads in HEADS.items():
        for number, (x, y) in enumerate(heads):
            shape = json.dumps({"name": "point", "cx": x, "cy": y}).replace('"', '""')
            lines.append(f'{name},123,"{{}}",{len(heads)},{number},"{shape}","{{}}"')
        if not heads:
            lines.append(f'{name},123,"{{}}",0,0,"{{}}","{{}}"')
    return {"via_region_data.csv": "\n".join(lines)}


def cclabeler():
    return {
        name.replace(".jpg", ".json"): {
            "img_id": name,
            "human_num": len(heads),
            "boxes": [],
            "points": [{"x": x, "y": y} for x, y in heads],
        }
        for name, heads in HEADS.items()
    }


def cvat():
    images = "".join(
        f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(f'<points label="head" points="{x},{y}"/>' for x, y in heads[:1])
        + "".join(
            f'<points label="head" points="{x},{y}" occluded="0"><attribute name="n">1'
            "</attribute></points>"
            for x, y in heads[1:]
        )
        + "</image>"
        for name, heads in HEADS.items()
    )
    return {
        "annotations.xml": '<?xml version="1.0" encoding="utf-8"?>\n<!-- made by hand -->\n'
        f"<annotations><version>1.1</version>{images}</annotations>"
    }


TOOL_FILES = {
    each.__name__: each
    for each in (coco, labelme, labelstudio, via_project, via_json, via_csv, cclabeler, cvat)
}


def tool_files(tool):
    """The files of a tool, bytes by name."""
    return {
        name: (text if isinstance(text, str) else json.dumps(text)).encode()
        for name, text in TOOL_FILES[tool]().items()
    }
