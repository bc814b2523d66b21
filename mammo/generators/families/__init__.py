"""Families of generators: a module each, that plans, trains and draws.

A family is a module with
    MODES                   names it takes, the default first
    SETTINGS                the settings of train_generator that it reads beyond those of all
    LR                      its learning rate where `lr` is 0
    MONITOR                 the metric that chooses its best checkpoint: val/loss or val/kid
    IN_TURN                 whether it moves two networks in turn, with an optimizer each
    check(settings)         ConfigError for what cannot work, before anything is opened
    plan(material, settings)         what rebuilds it later, as JSON; measured things included
    learner(plan, material, settings)   the Learner to fit (mammo.generators.learner)
    artist(model, device)   an Artist with the weights of a SavedModel (mammo.generators.artist)
    samplers(about)         names of its samplers of noise, the default first; () for one call
Importing a family is cheap: what needs torch is imported inside its functions.
"""
