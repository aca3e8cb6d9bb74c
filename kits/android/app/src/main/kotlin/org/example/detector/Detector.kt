package org.example.detector

import android.content.Context
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.objectdetector.ObjectDetector

/** The model of this kit; its labels and normalisation are in the file. */
fun openDetector(context: Context): ObjectDetector {
    val file = BaseOptions.builder().setModelAssetPath(context.getString(R.string.model)).build()
    val options = ObjectDetector.ObjectDetectorOptions.builder()
        .setBaseOptions(file).setRunningMode(RunningMode.IMAGE).setScoreThreshold(0.5f).setMaxResults(10)
    return ObjectDetector.createFromOptions(context, options.build())
}
