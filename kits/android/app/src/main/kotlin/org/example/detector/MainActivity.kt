package org.example.detector

import android.Manifest
import android.graphics.Bitmap
import android.graphics.Matrix
import android.os.Bundle
import android.widget.FrameLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts.RequestPermission
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.vision.objectdetector.ObjectDetector
import java.util.concurrent.Executors

/** Shows the camera and, below, what the model sees: class, score, box in pixels of the frame. */
class MainActivity : ComponentActivity() {
    private val detector: ObjectDetector by lazy { openDetector(this) }
    private val view by lazy { PreviewView(this) }
    private val words by lazy { TextView(this).apply { textSize = 18f } }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(FrameLayout(this).apply { fitsSystemWindows = true; addView(view); addView(words) })
        val ask = registerForActivityResult(RequestPermission()) { if (it) start() else finish() }
        ask.launch(Manifest.permission.CAMERA)
    }

    private fun start() {
        val found = ProcessCameraProvider.getInstance(this)
        found.addListener({
            val preview = Preview.Builder().build().apply { setSurfaceProvider(view.surfaceProvider) }
            val frames = ImageAnalysis.Builder()
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST).build()
            frames.setAnalyzer(Executors.newSingleThreadExecutor(), ::look)
            found.get().bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, preview, frames)
        }, mainExecutor)
    }

    private fun look(frame: ImageProxy) = frame.use {
        val turn = Matrix().apply { postRotate(frame.imageInfo.rotationDegrees.toFloat()) }
        val bitmap = frame.toBitmap()
        val upright = Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
        val objects = detector.detect(BitmapImageBuilder(framed(upright)).build()).detections()
        val lines = objects.map {
            "${it.categories()[0].categoryName()} ${"%.2f".format(it.categories()[0].score())} ${it.boundingBox()}"
        }
        runOnUiThread { words.text = lines.joinToString("\n") }
    }
}
