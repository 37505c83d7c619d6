"""What the stages share, in rooms that import only from those below them.

report      the answer as Markdown and as a page
models      which models there are, their cards, and loading them to predict
training    a classifier trained through the Trainer
labels      labels that look wrong
scores      scores of predictions, the same for every model
vectors     [CLS] vectors on disk, and the linear SVM on them
encoder     from token ids to hidden states
sources     where reviews and backbone come from
reviews     from a source's files to three validated splits
schema      the parameters in params.yaml
core        what every stage stands on
"""
