"""Fake releases of mias, busi, cesm, cbis_ddsm, ddsm and inbreast, with the real ones' headers."""

import plistlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openpyxl
from dicoms import half_breast, write_dicom
from releases_form import Builder, Fake, picture, text

MIAS_INFO = """\
              MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
1st column: MIAS database reference number.

mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM 
mdb004 D NORM 
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb006 F NORM 
mdb059 F CIRC B *NOTE 3*
mdb144 F MISC B 233 994 29
mdb144 F MISC M 313 540 27
"""  # noqa: W291  # the release has these blanks
MIAS_SIDE = 256  # a quarter of the release's 1024, to save time


def mias(folder: Path) -> Fake:
    """Info.txt and the PGM files, as all-mias.tar.gz holds them."""
    text(folder / "Info.txt", MIAS_INFO)
    for number in (1, 2, 3, 4, 5, 6, 59, 144):
        picture(folder / f"all-mias/mdb{number:03d}.pgm", shape=(MIAS_SIDE, MIAS_SIDE))
    return Fake(task="normal_benign_malignant")


BUSI = {  # picture -> its masks
    "benign (1)": ("_mask",),
    "benign (2)": ("_mask", "_mask_1", "_mask_2"),
    "benign (10)": ("_mask", "_mask_1"),
    "benign (11)": ("_mask",),
    "malignant (1)": ("_mask",),
    "malignant (21)": ("_mask",),
    "normal (1)": ("_mask",),
    "normal (12)": ("_mask",),
}


def busi(folder: Path) -> Fake:
    """A folder a class; each picture has a bright column of its own, its masks lie there."""
    for column, (name, masks) in enumerate(BUSI.items()):
        label = name.split()[0]
        place = folder / "Dataset_BUSI_with_GT" / label / f"{name}.png"
        stripe(place, columns=(3 * column, 3 * column + len(masks)))
        for number, mask in enumerate(masks):
            lesion = (3 * column + number, 3 * column + number + 1)
            stripe(place.with_name(f"{name}{mask}.png"), columns=(0, 0), lesion=lesion)
            if label == "normal":
                stripe(place.with_name(f"{name}{mask}.png"), columns=(0, 0))
    return Fake()


def stripe(path: Path, *, columns: tuple[int, int], lesion: tuple[int, int] = (0, 0)) -> Path:
    """An 8-bit picture, 24x24, that is 255 in `columns` and in `lesion` (first, end)."""
    from PIL import Image

    pixels = np.zeros((24, 24), np.uint8)
    for first, end in (columns, lesion):
        pixels[:, first:end] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


CESM_HEADER = (
    "Image_name", "Patient_ID", "Side", "Type", "Age", "Breast density (ACR)", "BIRADS",
    "Findings", "View", "Tags", "Machine", "Pathology Classification/ Follow up",
)  # fmt: skip
CESM_ROWS: list[tuple[object, ...]] = [
    ("P1_L_DM_MLO", 1, "L", "DM", 46, "C", 4, "x", "MLO", "x", 1, "Malignant"),
    ("P1_L_CM_MLO", 1, "L", "CESM", 46, "_", 4, "x", "MLO", "x", 1, "Malignant"),
    ("P2_R_DM_CC", 2, "R", "DM", 31, "C", "3$2", "x$y", "CC", "x", 2, "Benign"),
    ("P2_R_CM_CC", 2, "R", "CESM", 31, "_", "2$2$1", "x", "CC", "x", 2, "Normal"),
    ("P4_L_DM_MLO ", 4, "L", "DM", 55, "A", 1, "x", "MLO", "x", 1, "Normal"),
    ("P4_L_CM_MLO ", 4, "L", "CESM", 55, "_", 1, "x", "MLO", "x", 1, "Normal"),
    ("P99_L_DM_MLO", 99, "L", "DM", 61, "B", 1, "x", "MLO", "x", 1, "Normal"),
    ("P99_L_CM_MLO", 99, "L", "CESM", 61, "_", 1, "x", "MLO", "x", 1, "Normal"),
    ("P99_L_DM_MLO_2", 99, "L", "DM", 61, "_", 1, "x", "MLO", "x", 1, "Normal"),
    ("P99_L_CM_MLO_2", 99, "L", "CESM", 61, "_", 1, "x", "MLO", "x", 1, "Normal"),
    ("P5_R_DM_CC", 5, "R", "DM", 40, "D", 2, "x", "CC", "x", 1, "Benign"),
]
CESM_OUTLINES = """\
#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes
P1_L_DM_MLO.jpg,9,{},2,0,"{""name"":""polygon"",""all_points_x"":[4,20,20],""all_points_y"":[4,4,30]}",{}
P1_L_DM_MLO.jpg,9,{},2,1,"{""name"":""circle"",""cx"":8,""cy"":10,""r"":3}",{}
P1_L_CM_MLO.jpg,9,{},1,0,"{""name"":""polyline"",""all_points_x"":[5,21,21],""all_points_y"":[5,5,31]}",{}
P2_R_DM_CC.jpg,9,{},1,0,"{""name"":""point"",""cx"":4,""cy"":6}",{}
"""


def cesm(folder: Path, rows: Sequence[tuple[object, ...]] = CESM_ROWS) -> Fake:
    """The Excel table (its first sheet counts), the outlines and two folders of JPEGs."""
    book = openpyxl.Workbook()
    for row in (CESM_HEADER, *rows):
        book.worksheets[0].append(row)
    book.worksheets[0].title = "all"
    book.create_sheet("low energy").append(("something", "else"))
    book.save(folder / "Radiology-manual-annotations.xlsx")
    text(folder / "Radiology_hand_drawn_segmentations_v2.csv", CESM_OUTLINES)
    for name, *_ in rows:
        kind = "Low energy" if "_DM_" in str(name) else "Subtracted"
        picture(folder / f"{kind} images of CDD-CESM" / f"{str(name).strip()}.jpg")
    return Fake(task="normal_benign_malignant", options={"channels": "low_energy,subtracted"})


CBIS_HEADER = (
    "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,"
    "{first},{second},assessment,pathology,subtlety,image file path,cropped image file path,"
    "ROI mask file path\n"
)
CBIS_TABLES = {
    "mass_case_description_train_set": (
        "P_00001,3,LEFT,CC,1,mass,OVAL,SPICULATED,3,BENIGN_WITHOUT_CALLBACK,4,a,b,c\n"
        "P_00001,3,LEFT,CC,2,mass,OVAL,SPICULATED,5,MALIGNANT,4,a,b,c\n"
        "P_00001,3,LEFT,MLO,1,mass,OVAL,SPICULATED,5,MALIGNANT,4,a,b,c\n"
        "P_00041,2,LEFT,CC,1,mass,OVAL,SPICULATED,3,BENIGN,4,a,b,c\n"
    ),
    "mass_case_description_test_set": (
        "P_00016,4,RIGHT,CC,1,mass,OVAL,SPICULATED,2,BENIGN,4,a,b,c\n"
    ),
    "calc_case_description_train_set": (
        "P_00005,3,RIGHT,MLO,1,calcification,AMORPHOUS,CLUSTERED,3,MALIGNANT,3,a,b,c\n"
    ),
    "calc_case_description_test_set": (
        "P_00038,1,RIGHT,CC,1,calcification,ROUND,CLUSTERED,2,BENIGN_WITHOUT_CALLBACK,4,a,b,c\n"
        "P_00041,2,LEFT,CC,1,calcification,ROUND,CLUSTERED,4,BENIGN,4,a,b,c\n"
        "P_00041,2,LEFT,MLO,1,calcification,ROUND,CLUSTERED,4,MALIGNANT,4,a,b,c\n"
    ),
}
CBIS_FILM, CBIS_CROP = (40, 30), (10, 8)  # rows, columns
_FULL, _ROI, _CROPPED = "full mammogram images", "ROI mask images", "cropped images"
CBIS_FILES = [  # PatientID, SeriesDescription ("": none), sizes of the series' files
    ("Mass-Training_P_00001_LEFT_CC", _FULL, [CBIS_FILM]),
    ("Mass-Training_P_00001_LEFT_CC_1", _CROPPED, [CBIS_CROP, CBIS_FILM]),
    ("Mass-Training_P_00001_LEFT_CC_2", _ROI, [CBIS_FILM, CBIS_CROP]),
    ("Mass-Training_P_00001_LEFT_MLO", _FULL, [CBIS_FILM]),
    ("Mass-Training_P_00001_LEFT_MLO_1", _ROI, [(38, 30), CBIS_CROP]),
    ("P_00016_RIGHT_CC.dcm", "", [CBIS_FILM]),
    ("P_00016_RIGHT_CC_1.dcm", _CROPPED, [CBIS_FILM, CBIS_CROP]),
    ("Calc-Training_P_00005_RIGHT_MLO", _FULL, [CBIS_FILM]),
    ("Calc-Test_P_00038_RIGHT_CC", _FULL, [CBIS_FILM]),
    ("Calc-Test_P_00041_LEFT_CC", _FULL, [CBIS_FILM]),
    ("Mass-Training_P_00041_LEFT_CC", _FULL, [CBIS_FILM]),
    ("Calc-Test_P_00041_LEFT_MLO", _FULL, [CBIS_FILM]),
]


def cbis_ddsm(folder: Path) -> Fake:
    """Films, crops and masks as TCIA delivers them; a patient is in training and in test."""
    for name, rows in CBIS_TABLES.items():
        mass = name.startswith("mass")
        header = CBIS_HEADER.format(
            density="breast_density" if mass else "breast density",
            first="mass shape" if mass else "calc type",
            second="mass margins" if mass else "calc distribution",
        )
        text(folder / f"{name}.csv", header + rows)
    for study, (patient, series, shapes) in enumerate(CBIS_FILES, start=1):
        for number, shape in enumerate(shapes, start=1):
            tags = {"SeriesDescription": series} if series else {}
            write_dicom(
                folder / "CBIS-DDSM" / patient.removesuffix(".dcm") / f"1-{number}.dcm",
                half_breast(shape, level=2000 * study),
                bits=16,
                PatientID=patient,
                PatientOrientation="CC" if "_CC" in patient else "MLO",
                StudyInstanceUID=f"1.2.{study}",
                **tags,
            )
    return Fake()


DDSM_HEADER = (
    "fullPath", "fileName", "View", "Side", "Status", "Tumour_Contour", "Tumour_Contour2", "Age",
    "Density",
)  # fmt: skip
DDSM_CASES = [  # case, status, age, density, marked films with their number of masks
    ("C_0029", "Benign", 66, 3, {"LEFT_CC": 1, "LEFT_MLO": 1}),
    ("A_1001", "Cancer", 48, 2, {"RIGHT_CC": 2}),  # seen in one view only
    ("A_0500", "Normal", 51, 0, {}),
]
DDSM_VIEWS = [("LEFT", "CC"), ("RIGHT", "CC"), ("LEFT", "MLO"), ("RIGHT", "MLO")]


def ddsm(folder: Path) -> Fake:
    """mini-DDSM: paths of Windows in its table, `-` for no mask."""
    book = openpyxl.Workbook()
    book.worksheets[0].append(DDSM_HEADER)
    for case, status, age, density, marked in DDSM_CASES:
        for side, view in DDSM_VIEWS:
            stem = f"{case}_1.{side}_{view}"
            place = f"{status}/{case[2:]}"
            picture(folder / place / f"{stem}.jpg")
            masks = ["_Mask", "_Mask2"][: marked.get(f"{side}_{view}", 0)]
            for mask in masks:
                picture(folder / place / f"{stem}{mask}.jpg")
            first, second = [
                f"{status}\\{case[2:]}\\{stem}{mask}.jpg" if mask in masks else "-"
                for mask in ("_Mask", "_Mask2")
            ]
            told = (view, side, status, first, second, age, density)
            path = f"{status}\\{case[2:]}\\{stem}.jpg"
            book.worksheets[0].append((path, f"{stem}.jpg", *told))
    book.save(folder / "DataWMask.xlsx")
    return Fake(task="normal_benign_malignant")


INBREAST_TABLE = """\
Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads
removed;removed;R;CC;200809;22580192;2 ;2
removed;removed;R;MLO;200809;22580244;2 ;2
removed;removed;L;CC;200810;22670301;1;4a
removed;removed;L;MLO;200810;22670324;1;4C
removed;removed;R;MLO;200906;24055274;4 ;6
removed;removed;R;CC;200906;24055355;4 ;5
removed;removed;L;ML;200907;24065251; ;3
removed;removed;L;FB;200907;24065289;3 ;1
;;;;;;;
Notes;;;;;;;
"""
INBREAST_FILES = [
    "22580192_5530d5782fc89dd7_MG_R_CC_ANON",
    "22580244_5530d5782fc89dd7_MG_R_ML_ANON",
    "22670301_98429c0bdf78c0c7_MG_L_CC_ANON",
    "22670324_98429c0bdf78c0c7_MG_L_ML_ANON",
    "24055274_1e10aef17c9fe149_MG_R_ML_ANON",
    "24055355_1e10aef17c9fe149_MG_R_CC_ANON",
    "24065251_8d0b9620c53c0268_MG_L_ML_ANON",
    "24065289_8d0b9620c53c0268_MG_L_FB_ANON",
]
INBREAST_ROIS = {
    "22670301": [
        ("Mass", ["(4.5, 6)", "(20.25, 6)", "(20.25, 30.5)"]),
        ("Calcification", ["(9, 12)"]),
    ],
    "24055274": [
        ("Pectoral Muscle", ["(0, 0)", "(30, 0)", "(0, 40)"]),
        ("Spiculated Region", ["(7, 8)", "(17, 8)", "(12, 18)"]),
    ],
}


def inbreast(folder: Path) -> Fake:
    """INbreast.csv, AllDICOMs and AllXML; dates in table and headers, no patient in either."""
    text(folder / "INbreast.csv", INBREAST_TABLE)
    for number, name in enumerate(INBREAST_FILES, start=1):
        write_dicom(
            folder / "AllDICOMs" / f"{name}.dcm",
            half_breast(
                (48, 36), wall="left" if "_L_" in name else "right", level=1000 + 300 * number
            ),
            PatientID="removed",
            AcquisitionDate="20080901",
        )
    for number, rois in INBREAST_ROIS.items():
        listed = [
            {"Name": name, "NumberOfPoints": len(points), "Point_px": points}
            for name, points in rois
        ]
        image = {"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": listed}
        path = folder / "AllXML" / f"{number}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(plistlib.dumps({"Images": [image]}))
    return Fake(task="malignancy4_birads")


RELEASES: dict[str, Builder] = {
    "busi": busi,
    "cbis_ddsm": cbis_ddsm,
    "cesm": cesm,
    "ddsm": ddsm,
    "inbreast": inbreast,
    "mias": mias,
}
