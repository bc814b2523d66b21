"""mammo: does synthetic mammography data help a breast-cancer classifier, and can you prove it?"""
