"""Make the example's model: what does a taxi ride cost?

    python train.py model.joblib      needs scikit-learn and joblib, as in requirements.txt

A linear regression on rides whose price is 3.50 and 1.80 a kilometre and 0.40 a minute, so that its
answers can be computed by hand.
"""

import sys

import joblib
from sklearn.linear_model import LinearRegression

RIDES = [[1.0, 4.0], [2.5, 9.0], [4.0, 11.0], [7.5, 26.0], [12.0, 25.0], [20.0, 31.0]]

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    prices = [3.5 + 1.8 * kilometres + 0.4 * minutes for kilometres, minutes in RIDES]
    joblib.dump(LinearRegression().fit(RIDES, prices), sys.argv[1])
