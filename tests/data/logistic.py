"""Logistic regression, the oracle of what depends on what."""

import numpy as np
from sklearn.linear_model import LogisticRegression


def logistic(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and standard errors (from the information matrix), the intercept first."""
    model = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(X, y)
    coefficients = np.concatenate([model.intercept_, model.coef_[0]])
    design = np.column_stack([np.ones(len(X)), X])
    p = model.predict_proba(X)[:, 1]
    information = design.T @ (design * (p * (1 - p))[:, None])
    return coefficients, np.sqrt(np.diag(np.linalg.inv(information)))
