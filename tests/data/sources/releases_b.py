"""Fake releases of cmmd, vindr, rsna, embed, csaw_cc and bcs_dbt, with the real ones' headers."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import openpyxl
from dicoms import half_breast, write_dicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from releases_form import Builder, Fake, picture, text


def breast(number: int, side: str, *, level: int = 2000, frames: int = 1) -> NDArray[np.uint16]:
    """A breast of its own texture for each `number`, its wall where `side` has it (L: left)."""
    shape = half_breast(wall="left" if side.upper().startswith("L") else "right", level=level)
    draw = np.random.default_rng(number)
    texture = [draw.uniform(0.6, 1, shape.shape) for _ in range(frames)]
    return np.concatenate([(shape * each).astype(np.uint16) for each in texture])


# patient, side, age, abnormality, classification, subtype
CMMD_TABLE: list[tuple[object, ...]] = [
    ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"),
    ("D1-0001", "R", 44, 2, "calcification", "Benign", None),
    ("D1-0002", "L", 51, 2, "mass", "Benign", None),
    ("D1-0002", "R", 51, 2, "both", "Malignant", None),
    ("D2-0001", "L", 60, 4, "mass", "Malignant", "Luminal A"),
    ("D2-0002", "R", 38, 2, "mass", "Malignant", "triple negative"),
]
CMMD_FILES = [  # patient, side, view
    ("D1-0001", "R", "CC"), ("D1-0001", "R", "MLO"),
    ("D1-0002", "L", "CC"), ("D1-0002", "R", "CC"),
    ("D2-0001", "L", "CC"), ("D2-0001", "L", "MLO"),
    ("D2-0001", "R", "CC"), ("D2-0001", "R", "MLO"),  # contralateral: not in the table
    ("D2-0002", "R", "MLO"),
]  # fmt: skip


def cmmd(folder: Path, table: Iterable[tuple[object, ...]] = CMMD_TABLE) -> Fake:
    """The folders of the collection's download, and the table that is fetched beside them."""
    book = openpyxl.Workbook()
    for row in table:
        book.worksheets[0].append(row)
    book.save(folder / "CMMD_clinicaldata_revision.xlsx")
    for number, (patient, side, view) in enumerate(CMMD_FILES, start=1):
        code = Dataset()
        code.CodeValue = {"CC": "R-10242", "MLO": "R-10226"}[view]
        code.CodingSchemeDesignator = "SNM3"
        code.CodeMeaning = {"CC": "cranio-caudal", "MLO": "medio-lateral oblique"}[view]
        series = folder / "CMMD" / patient / "07-18-2010-NA-NA-79377" / "1.000000-NA-70244"
        write_dicom(
            series / f"1-{number}.dcm",
            breast(number, side, level=200),
            bits=8,
            PatientID=patient,
            PatientAge="099Y",
            StudyInstanceUID=f"1.2.3.{patient[1]}.{int(patient[3:])}",
            SOPInstanceUID=f"1.2.3.9.{number}",
            ImageLaterality=side,
            ViewCodeSequence=[code],
            WindowCenter=128,
            WindowWidth=256,
            VOILUTFunction="SIGMOID",
            Manufacturer="SIEMENS",
        )
    return Fake()


VINDR_BREASTS = """\
study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split
0a01,5e01,1a01,L,CC,96,72,BI-RADS 1,DENSITY C,training
0a01,5e01,1a02,L,MLO,96,72,BI-RADS 1,DENSITY C,training
0a01,5e01,1a03,R,CC,96,72,BI-RADS 5,DENSITY C,training
0a01,5e01,1a04,R,MLO,96,72,BI-RADS 5,DENSITY C,training
0a02,5e02,1a05,L,CC,96,72,BI-RADS 3,DENSITY B,test
0a02,5e02,1a06,R,MLO,96,72,BI-RADS 4,DENSITY B,test
0a02,5e02,1a07,R,CC,96,72,BI-RADS 2,DENSITY B,test
0a03,5e03,1a08,R,CC,96,72,BI-RADS 2,DENSITY A,training
"""
VINDR_FINDINGS = """\
study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,\
finding_categories,finding_birads,xmin,ymin,xmax,ymax,split
0a01,5e01,1a03,R,CC,96,72,BI-RADS 5,DENSITY C,"['Mass', 'Suspicious Calcification']",BI-RADS 5,\
30.5,20.25,50.0,44.75,training
0a01,5e01,1a03,R,CC,96,72,BI-RADS 5,DENSITY C,['Skin Thickening'],BI-RADS 4,60.0,10.0,70.0,30.0,\
training
0a01,5e01,1a01,L,CC,96,72,BI-RADS 1,DENSITY C,['No Finding'],,,,,,training
0a02,5e02,1a06,R,MLO,96,72,BI-RADS 4,DENSITY B,['Mass'],BI-RADS 4,40.0,40.0,52.0,55.0,test
"""


def vindr(folder: Path) -> Fake:
    """The three tables and images/<study>/<image>.dicom."""
    text(folder / "breast-level_annotations.csv", VINDR_BREASTS)
    text(folder / "finding_annotations.csv", VINDR_FINDINGS)
    lines = [line.split(",") for line in VINDR_BREASTS.splitlines()[1:]]
    vendors = ["SIEMENS" if line[0] == "0a01" else "Planmed" for line in lines]
    text(
        folder / "metadata.csv",
        "SOP Instance UID,Series Instance UID,Manufacturer,Manufacturer's Model Name\n"
        + "".join(
            f"{line[2]},{line[1]},{vendor},Mammomat Inspiration\n"
            for line, vendor in zip(lines, vendors, strict=True)
        ),
    )
    for number, line in enumerate(lines):
        file = folder / "images" / line[0] / f"{line[2]}.dicom"
        write_dicom(file, breast(number, line[3]), PatientAge="053Y")
    return Fake()


RSNA_TABLE = """\
site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,\
machine_id,difficult_negative_case
2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False
2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False
2,10006,1864590858,R,CC,61.0,1,1,1,,0,,29,False
2,10006,1874946579,R,MLO,61.0,1,1,1,,0,,29,False
1,10011,220375232,L,CC,55.0,0,0,0,0.0,1,C,21,True
1,10011,541722628,L,AT,55.0,0,0,0,0.0,1,C,21,True
1,10025,562340703,R,LMO,75.0,0,0,0,1.0,0,B,170,False
1,10025,882603593,R,MLO,,0,0,0,1.0,0,B,170,False
"""


def rsna(folder: Path) -> Fake:
    """The challenge's own layout: train_images/<patient>/<image>.dcm."""
    text(folder / "train.csv", RSNA_TABLE)
    for number, line in enumerate(RSNA_TABLE.splitlines()[1:]):
        _, patient, image, side = line.split(",")[:4]
        write_dicom(folder / "train_images" / patient / f"{image}.dcm", breast(number, side))
    return Fake()


def rsna_pngs(folder: Path, *, name: str = "{patient}_{image}.png") -> None:
    """The layout of 512-pixel PNG files, with the four columns that it needs."""
    lines = [line.split(",") for line in RSNA_TABLE.splitlines()[1:]]
    text(
        folder / "input" / "train.csv",
        "patient_id,image_id,laterality,cancer\n"
        + "".join(f"{line[1]},{line[2]},{line[3]},{line[6]}\n" for line in lines),
    )
    root = folder / "input/images_as_pngs_512/train_images_processed_512"
    for line in lines:
        picture(root / name.format(patient=line[1], image=line[2]))


EMBED_CLINICAL = """\
,empi_anon,acc_anon,study_date_anon,desc,numfind,side,asses,tissueden,massshape,bside,path1,\
path_severity,age_at_study,GENDER_DESC
0,10000001,5001,2013-04-05,MG Screening Bilateral w/CAD,1,L,A,2.0,,L,DC,1.0,52.5,Female
1,10000001,5001,2013-04-05,MG Screening Bilateral w/CAD,2,R,N,2.0,,,,,52.5,Female
2,10000001,5002,2014-04-05,MG Screening Bilateral w/CAD,1,B,B,2.0,,,FA,4.0,53.5,Female
3,10000002,5003,2015-01-02,MG Diagnostic Bilateral w/ CAD,1,,K,3.0,,R,ID,0.0,61.0,Female
4,10000002,5004,2016-01-02,MG Diagnostic Left w/CAD,1,L,B,3.0,O,L,FA,4.0,62.0,Female
5,10000002,5004,2016-01-02,MG Diagnostic Left w/CAD,2,L,S,3.0,I,L,ID,0.0,62.0,Female
6,10000003,5005,2016-02-02,MG Diagnostic Left w/CAD,1,L,M,5.0,I,L,ID,0.0,70.0,Male
7,10000004,5006,2017-02-02,MG Diagnostic Right w/CAD,1,R,P,4.0,O,R,LH,2.0,45.0,Female
8,10000005,5007,2017-03-02,MG Diagnostic Right w/CAD,1,R,K,1.0,O,,,,48.0,Female
"""
EMBED_MODIFIER = "0_ViewCodeSequence_0_ViewModifierCodeSequence_CodeMeaning"
_NAS = "/nas/mammo/anon_dicom"
EMBED_METADATA = f"""\
,empi_anon,acc_anon,anon_dicom_path,study_date_anon,FinalImageType,ImageLateralityFinal,\
ViewPosition,spot_mag,num_roi,ROI_coords,match_level,BreastImplantPresent,Manufacturer,{EMBED_MODIFIER}
0,10000001,5001,{_NAS}/cohort_1/10000001/5001/8.1.dcm,2013-04-05,2D,L,MLO,,1,"((20, 30, 44, 50),)",\
[1],NO,"HOLOGIC, Inc.",
1,10000001,5001,{_NAS}/cohort_1/10000001/5001/8.2.dcm,2013-04-05,cview,L,CC,,2,\
"((20, 30, 44, 50), (50, 12, 60, 24))","[2, 2]",NO,"HOLOGIC, Inc.",
2,10000001,5001,{_NAS}/cohort_1/10000001/5001/8.3.dcm,2013-04-05,2D,R,CC,,0,(),,NO,"HOLOGIC, Inc.",
3,10000001,5002,{_NAS}/cohort_1/10000001/5002/8.4.dcm,2014-04-05,2D,L,CC,,0,(),,NO,"HOLOGIC, Inc.",
4,10000001,5002,{_NAS}/cohort_1/10000001/5002/8.5.dcm,2014-04-05,2D,R,MLO,,0,(),,NO,"HOLOGIC, Inc.",
5,10000002,5003,{_NAS}/cohort_2/10000002/5003/8.6.dcm,2015-01-02,2D,R,CC,,0,(),,NO,GE,
6,10000002,5003,{_NAS}/cohort_2/10000002/5003/8.7.dcm,2015-01-02,2D,L,CC,,0,(),,NO,GE,
7,10000002,5004,{_NAS}/cohort_2/10000002/5004/8.8.dcm,2016-01-02,2D,L,CC,1.0,0,(),,NO,GE,
8,10000002,5004,{_NAS}/cohort_2/10000002/5004/8.9.dcm,2016-01-02,2D,L,MLO,1.0,0,(),,YES,GE,\
Spot Compression
9,10000002,5004,{_NAS}/cohort_2/10000002/5004/8.10.dcm,2016-01-02,3D,L,CC,,0,(),,NO,GE,
10,10000002,5004,{_NAS}/cohort_2/10000002/5004/8.11.dcm,2016-01-02,2D,L,XCCL,,0,(),,NO,GE,
11,10000002,5004,{_NAS}/cohort_2/10000002/5004/8.8.dcm,2016-01-02,2D,L,CC,1.0,0,(),,NO,GE,
12,10000003,5005,{_NAS}/cohort_1/10000003/5005/8.12.dcm,2016-02-02,2D,L,CC,,0,(),,NO,GE,
13,10000004,5006,{_NAS}/cohort_1/10000004/5006/8.13.dcm,2017-02-02,2D,R,CC,,0,(),,NO,FUJI,
14,10000004,5006,{_NAS}/cohort_1/10000004/5006/8.14.dcm,2017-02-02,2D,L,CC,,0,(),,NO,FUJI,
15,10000004,5006,{_NAS}/cohort_1/10000004/5006/8.15.dcm,2017-02-02,2D,,CC,,0,(),,NO,FUJI,
16,10000005,5007,{_NAS}/cohort_1/10000005/5007/8.16.dcm,2017-03-02,2D,R,MLO,,0,(),,NO,FUJI,
"""


def embed(folder: Path) -> Fake:
    """tables/ and images/cohort_…; the paths in the table start where the release was made."""
    text(folder / "tables/EMBED_OpenData_clinical.csv", EMBED_CLINICAL)
    text(folder / "tables/EMBED_OpenData_metadata.csv", EMBED_METADATA)
    lines = csv.reader(EMBED_METADATA.splitlines()[1:])
    for number, (_, patient, _, path, _, _, side, *_) in enumerate(lines):
        file = folder / "images" / path.removeprefix(f"{_NAS}/")
        write_dicom(file, breast(number, side or "L"), PatientID=patient)
    return Fake()


CSAW_TABLE = """\
anon_patientid,exam_year,x_age,x_case,x_cancer_laterality,x_type,x_lymphnode_met,rad_timing,rad_r1,\
rad_r2,rad_recall,rad_recall_type_right,rad_recall_type_left,imagelaterality,viewposition,\
libra_breastarea,libra_densearea,libra_percentdensity,anon_filename
7,2012,1,1,Left,2.0,0.0,3.0,1,1,0,,,Left,CC,120.5,30.1,25.0,7_20990909_L_CC_1.dcm
7,2014,1,1,Left,2.0,0.0,1.0,2,2,1,,1.0,Left,CC,120.5,30.1,24.97934,7_20990909_L_CC_2.dcm
7,2014,1,1,Left,2.0,0.0,1.0,2,2,1,,1.0,Left,MLO,121.5,30.1,24.8,7_20990909_L_MLO_2.dcm
7,2014,1,1,Left,2.0,0.0,1.0,2,2,1,,1.0,Right,CC,119.5,30.1,25.2,7_20990909_R_CC_2.dcm
12,2013,2,1,Right,1.0,1.0,2.0,1,1,0,,,Right,MLO,99.0,9.9,10.0,12_20990909_R_MLO_1.dcm
12,2013,2,1,Right,1.0,1.0,2.0,1,1,0,,,Left,MLO,98.0,9.8,,12_20990909_L_MLO_1.dcm
31,2013,2,0,,,,,1,1,0,,,Left,CC,77.0,7.7,10.0,31_20990909_L_CC_1.dcm
31,2013,2,0,,,,,1,1,0,,,Left,ML,77.0,7.7,10.0,31_20990909_L_ML_1.dcm
"""


def csaw_cc(folder: Path) -> Fake:
    """The table, and the files in one folder."""
    text(folder / "CSAW-CC_breast_cancer_screening_data.csv", CSAW_TABLE)
    for number, line in enumerate(csv.DictReader(CSAW_TABLE.splitlines())):
        file = folder / "images" / line["anon_filename"]
        write_dicom(file, breast(number, line["imagelaterality"]))
    return Fake()


BCS_SERIES = [  # part, patient, study, view, series, normal, actionable, benign, cancer
    ("train", "DBT-P00001", "DBT-S00001", "lcc", "2.1", 0, 0, 0, 1),
    ("train", "DBT-P00001", "DBT-S00001", "lmlo2", "2.2", 0, 0, 0, 1),
    ("train", "DBT-P00001", "DBT-S00001", "rcc", "2.3", 1, 0, 0, 0),
    ("train", "DBT-P00002", "DBT-S00002", "rmlo", "2.4", 0, 1, 0, 0),
    ("train", "DBT-P00003", "DBT-S00003", "rmlo", "2.5", 0, 0, 1, 0),
    ("validation", "DBT-P00004", "DBT-S00004", "rcc", "2.6", 0, 0, 1, 0),
    ("test", "DBT-P00005", "DBT-S00005", "lmlo", "2.7", 0, 0, 0, 1),
]
BCS_BOXES = {
    "train": [
        "DBT-P00001,DBT-S00001,lcc,0,3,10,30,12,16,cancer,0,5",
        "DBT-P00001,DBT-S00001,lcc,1,3,20,50,4,8,benign,0,5",
        "DBT-P00001,DBT-S00001,lcc,2,1,10,30,30,40,benign,0,5",
        "DBT-P00003,DBT-S00003,rmlo,0,4,50,40,10,10,benign,0,5",
    ],
    "validation": ["DBT-P00004,DBT-S00004,rcc,0,0,40,30,20,20,benign,1,5"],
}
BCS_FRAMES = 5


def bcs_dbt(folder: Path) -> Fake:
    """Tables of the three parts, whose names end in versions, and a volume a view."""
    for part, suffix in (("train", "v2"), ("validation", "v2-PHASE-2"), ("test", "v2")):
        mine = [line for line in BCS_SERIES if line[0] == part]
        text(
            folder / f"BCS-DBT-file-paths-{part}-v2.csv",
            "PatientID,StudyUID,View,descriptive_path,classic_path\n"
            + "".join(
                f"{patient},{study},{view},"
                f"Breast-Cancer-Screening-DBT/{patient}/01-01-2000-{study}-MAMMO-1/{series}-7/1-1.dcm,"
                f"Breast-Cancer-Screening-DBT/{patient}/1.9/{series}/1-1.dcm\n"
                for _, patient, study, view, series, *_ in mine
            ),
        )
        text(
            folder / f"BCS-DBT-labels-{part}-{suffix}.csv",
            "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"
            + "".join(",".join(map(str, (*line[1:4], *line[5:]))) + "\n" for line in mine),
        )
        if part in BCS_BOXES:
            text(
                folder / f"BCS-DBT-boxes-{part}-{suffix}.csv",
                "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices\n"
                + "\n".join(BCS_BOXES[part]),
            )
        for _, patient, _, view, series, *_ in mine:
            pixels = breast(int(series[2:]), view, frames=BCS_FRAMES)
            write_dicom(
                folder / f"Breast-Cancer-Screening-DBT/{patient}/1.9/{series}/1-1.dcm",
                pixels,
                Rows=len(pixels) // BCS_FRAMES,
                NumberOfFrames=BCS_FRAMES,
            )
    return Fake(task="malignancy2")


RELEASES: dict[str, Builder] = {
    "bcs_dbt": bcs_dbt,
    "cmmd": cmmd,
    "csaw_cc": csaw_cc,
    "embed": embed,
    "rsna": rsna,
    "vindr": vindr,
}
