"""Feast declarations: what perso's segments mean and who may rely on them.

``feast`` runs in this folder as it is. Nothing imports it: perso reads it as Feast does.
"""
