throw new RangeError('while importing');
